"""Migrations: numbered SQL files, each applied once, in order."""

from __future__ import annotations

import re
from importlib import resources

from metering.errors import MeteringError, SinkUnavailable
from sinks.clickhouse.connection import ClickHouseError, ClickHouseTarget, Client, connect

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def migrate(target: ClickHouseTarget) -> list[str]:
    """Bring the database up to date; returns the names of the migrations that were applied.

    Every statement can be repeated, so a crash between a migration and its note is harmless.

    Raises:
        SinkUnavailable: ClickHouse did not take it.
    """
    if not _IDENTIFIER.match(target.database):
        raise MeteringError(f"database name {target.database!r}: letters, digits and _ only")
    with connect(target, database="default") as client:
        try:
            return _apply(client, target.database)
        except ClickHouseError as exc:
            raise SinkUnavailable(f"ClickHouse at {target.url}", 0, str(exc).strip()) from exc


def _apply(client: Client, database: str) -> list[str]:
    client.command(f"CREATE DATABASE IF NOT EXISTS {database}")
    client.command(
        f"CREATE TABLE IF NOT EXISTS {database}.migrations "
        "(name String, applied DateTime DEFAULT now()) ENGINE = MergeTree ORDER BY name"
    )
    done = {row[0] for row in client.query(f"SELECT name FROM {database}.migrations").result_rows}  # noqa: S608  # checked identifier
    applied = []
    for file in sorted(
        resources.files("sinks.clickhouse.migrations").iterdir(), key=lambda f: f.name
    ):
        if not file.name.endswith(".sql") or file.name in done:
            continue
        for statement in _statements(file.read_text(encoding="utf-8")):
            client.command(statement.replace("{database:Identifier}", database))
        client.insert(f"{database}.migrations", [[file.name]], column_names=["name"])
        applied.append(file.name)
    return applied


def _statements(sql: str) -> list[str]:
    """Split at the semicolons that end a line; comments go."""
    text = "\n".join(line for line in sql.splitlines() if not line.startswith("--"))
    return [s.strip() for s in re.split(r";\s*(?:\n|\Z)", text) if s.strip()]

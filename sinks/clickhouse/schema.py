"""Migrations: numbered SQL files, each applied once, in order."""

from __future__ import annotations

import re
from importlib import resources

from metering.errors import MeteringError, SinkUnavailable
from sinks.clickhouse.cluster import DATABASE, preparation, rendered
from sinks.clickhouse.connection import ClickHouseError, ClickHouseTarget, Client, connect
from sinks.clickhouse.reasons import reason_of

_MIGRATIONS = resources.files("sinks.clickhouse.migrations")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def migrate(target: ClickHouseTarget) -> list[str]:
    """Bring the database up to date; returns the names of the migrations that were applied.

    Every statement can be repeated, so a crash between a migration and its note is harmless, and
    so are several who migrate at once. Where the target names a cluster, it is migrated whole.

    Raises:
        SinkUnavailable: ClickHouse did not take it.
    """
    for what, name in (("database", target.database), ("cluster", target.cluster)):
        if not _IDENTIFIER.match(name) and (name or what == "database"):
            raise MeteringError(f"{what} name {name!r}: letters, digits and _ only")
    with connect(target, database="default") as client:
        try:
            return _apply(client, target.database, target.cluster)
        except ClickHouseError as exc:
            raise SinkUnavailable(f"ClickHouse at {target.address}", 0, reason_of(exc)) from exc


def statements_of(file: str, cluster: str) -> list[str]:
    """The statements of a migration in order, rendered for the cluster where one is named;
    ``{database:Identifier}`` stands where the database's name goes."""
    text = (_MIGRATIONS / file).read_text(encoding="utf-8")
    plain = _statements(text)
    return [s for one in plain for s in rendered(one, cluster)] if cluster else plain


def migrations() -> list[str]:
    """The files' names, in the order in which they are applied."""
    return sorted(file.name for file in _MIGRATIONS.iterdir() if file.name.endswith(".sql"))


def _apply(client: Client, database: str, cluster: str) -> list[str]:
    _prepare(client, database, cluster)
    done = {row[0] for row in client.query(f"SELECT name FROM {database}.migrations").result_rows}  # noqa: S608  # checked identifier
    applied = []
    for name in migrations():
        if name in done:
            continue
        for statement in statements_of(name, cluster):
            client.command(statement.replace(DATABASE, database))
        client.insert(f"{database}.migrations", [[name]], column_names=["name"])
        applied.append(name)
    return applied


def _prepare(client: Client, database: str, cluster: str) -> None:
    """The database, and the table that notes what is applied.

    On a cluster only where this node has none: to ask all nodes would make every start wait for
    every node.
    """
    if not cluster:
        statements = [
            f"CREATE DATABASE IF NOT EXISTS {DATABASE}",
            f"CREATE TABLE IF NOT EXISTS {DATABASE}.migrations "
            "(name String, applied DateTime DEFAULT now()) ENGINE = MergeTree ORDER BY name",
        ]
    elif int(str(client.command(f"EXISTS TABLE {database}.migrations"))):
        statements = []
    else:
        statements = preparation(cluster)
    for statement in statements:
        client.command(statement.replace(DATABASE, database))


def _statements(sql: str) -> list[str]:
    """Split at the semicolons that end a line; comments go."""
    text = "\n".join(line for line in sql.splitlines() if not line.startswith("--"))
    return [s.strip() for s in re.split(r";\s*(?:\n|\Z)", text) if s.strip()]

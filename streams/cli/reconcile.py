"""``meter reconcile``."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import click
from rich.console import Console

from metering.errors import MeteringError
from sinks.clickhouse.queries import ClickHouseReader
from streams.cli.common import dir_option, explain_absence, json_option, running_settings
from streams.reconcile import reconcile as compare
from streams.reconcile import server_counters
from streams.reconcile_table import verdict_table
from streams.targets import clickhouse_target


@click.command(short_help="Metered usage against Triton's own counters.")
@dir_option()
@click.option("--clickhouse", metavar="URL", help="Where the metered usage is.")
@click.option("--triton", metavar="HOST:PORT", help="Triton's gRPC address.")
@json_option
def reconcile(folder: Path, clickhouse: str | None, triton: str | None, as_json: bool) -> None:
    """Metered usage against Triton's own counters, since Triton started.

    Executions and rows must be equal; GPU time is measured inside what Triton measures, so it
    may be up to 10 % less and never more. Exits with 1 if a model disagrees. Usage that is still
    on its way shows as missing: ask again when traffic rests.
    """
    settings = running_settings(folder, clickhouse, triton)
    try:
        server = asyncio.run(server_counters(settings.triton_grpc))
        reader = ClickHouseReader(clickhouse_target(settings))
        verdicts = compare(server, reader.metered())
        reader.close()
    except MeteringError as exc:
        raise explain_absence(folder, exc) from exc
    if as_json:
        document = {v.server.model: {**v.as_json(), "agrees": v.agrees} for v in verdicts}
        click.echo(json.dumps(document, indent=2))
    else:
        Console().print(verdict_table(verdicts))
    sys.exit(0 if all(v.agrees for v in verdicts) else 1)

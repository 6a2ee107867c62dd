"""``meter reconcile``."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import click
from rich.console import Console

from metering.errors import MeteringError
from streams.cli.common import dir_option, explain_absence, json_option, running_settings
from streams.reconcile import by_model
from streams.reconcile import reconcile as compare
from streams.reconcile_table import outcome_table, verdict_table


@click.command(short_help="Metered usage against Triton's own counters.")
@dir_option()
@click.option("--clickhouse", metavar="URL", help="Where the metered usage is.")
@click.option("--triton", metavar="HOST:PORT", help="Triton's gRPC address.")
@json_option
def reconcile(folder: Path, clickhouse: str | None, triton: str | None, as_json: bool) -> None:
    """Metered usage against Triton's own counters, since Triton started.

    Executions, rows and requests by outcome must be equal; GPU time is measured inside what Triton
    measures, so it may be up to 10 % less and never more. What never reached a model and no front
    has seen is known by the counters alone. Exits with 1 if a model disagrees. Usage that is still
    on its way shows as missing: ask again when traffic rests.
    """
    settings = running_settings(folder, clickhouse, triton)
    try:
        verdicts = asyncio.run(compare(settings))
    except MeteringError as exc:
        raise explain_absence(folder, exc) from exc
    if as_json:
        click.echo(json.dumps(by_model(verdicts), indent=2))
    else:
        console = Console()
        console.print(verdict_table(verdicts))
        console.print()
        console.print(outcome_table(verdicts))
    sys.exit(0 if all(v.agrees for v in verdicts) else 1)

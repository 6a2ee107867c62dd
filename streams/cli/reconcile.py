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
from streams.reconcile import by_model, earlier_json
from streams.reconcile import reconcile as compare
from streams.reconcile_earlier import earlier_losses
from streams.reconcile_table import earlier_table, outcome_table, verdict_table


@click.command(short_help="Metered usage against Triton's own counters.")
@dir_option()
@click.option("--clickhouse", metavar="URL", help="Where the metered usage is.")
@click.option("--triton", metavar="HOST:PORT", help="Triton's gRPC address.")
@json_option
def reconcile(folder: Path, clickhouse: str | None, triton: str | None, as_json: bool) -> None:
    """Metered usage against Triton's own counters, since each model was loaded.

    Executions, rows and requests by outcome must be equal; GPU time is measured inside what Triton
    measures, so it may be less, by 10 % and 250 ms a process and 1 ms an execution ("least" is what
    follows), and never more. Requests that Triton counts as executed may have been cancelled, or
    answered with an error: what is stored tells. What never reached a model and no front has seen
    is known by the counters alone.

    Exits with 1 if a model that is loaded disagrees. Usage that is still on its way shows as
    missing: ask again when traffic rests. What earlier servers had counted and is not stored is
    shown too, by their last heartbeats, and changes no exit code.
    """
    settings = running_settings(folder, clickhouse, triton)
    try:
        verdicts = asyncio.run(compare(settings))
        earlier = asyncio.run(earlier_losses(settings, verdicts))
    except MeteringError as exc:
        raise explain_absence(folder, exc) from exc
    if as_json:
        document: dict[str, object] = {**by_model(verdicts)}
        if earlier:
            document["earlier_servers"] = earlier_json(earlier)
        click.echo(json.dumps(document, indent=2))
    else:
        console = Console()
        console.print(verdict_table(verdicts))
        console.print()
        console.print(outcome_table(verdicts))
        if earlier:
            console.print()
            console.print(earlier_table(earlier))
            console.print(
                '\nEvery comparison: meter sql "SELECT * FROM reconciliations ORDER BY time"'
            )
    sys.exit(0 if all(v.agrees for v in verdicts) else 1)

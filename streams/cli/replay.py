"""``meter replay``."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import get_args

import click
from rich.console import Console
from rich.table import Table

from metering.errors import MeteringError
from streams.cli.common import Narrator, dir_option, existing_options, json_option, running_settings
from streams.replay.plan import PlannedRequest, parse_tenants, plan_replay
from streams.replay.run import ReplayReport, run_replay
from streams.replay.traces import TraceFormat, read_trace
from streams.settings import Settings
from streams.stack.config import StackConfig
from streams.stack.running import find_running
from streams.stack.stack import Stack


@click.command(short_help="A trace of real traffic through the stack.")
@click.argument("trace", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--format", "trace_format", type=click.Choice(get_args(TraceFormat)), required=True)
@click.option(
    "--speed", type=float, default=1.0, show_default=True, help="Times as fast as it was."
)
@click.option("--duration", "duration_s", type=float, help="Stop sending after so many seconds.")
@click.option(
    "--tenants",
    default="",
    help="CLIENT=TENANT,… and names for everybody else; or @FILE with the same.",
)
@click.option("--model", default="llama_8b_sim", show_default=True, help="Where rows go.")
@dir_option()
@existing_options
@json_option
def replay(
    *,
    trace: Path,
    trace_format: TraceFormat,
    speed: float,
    duration_s: float | None,
    tenants: str,
    model: str,
    folder: Path,
    kafka: str | None,
    clickhouse: str | None,
    triton: str | None,
    as_json: bool,
) -> None:
    """Send a trace's requests to Triton on their schedule, and count what came out at the end.

    Goes to the stack that runs in --dir; where none runs, starts one for as long as it takes.
    Exits with 1 if a request failed, is not stored, or has other tokens than its row.
    """
    text = Path(tenants[1:]).read_text(encoding="utf-8") if tenants.startswith("@") else tenants
    prefix = f"replay-{uuid.uuid4().hex[:8]}"
    plan = list(
        plan_replay(
            read_trace(trace, trace_format),
            speed=speed,
            duration_s=duration_s,
            tenants=parse_tenants(text),
            model=model,
            id_prefix=prefix,
        )
    )
    if not plan:
        raise MeteringError(
            f"{trace}: no row falls into --duration {duration_s} at --speed {speed}"
        )
    config = StackConfig(folder=folder, kafka=kafka, clickhouse=clickhouse, triton=triton)
    report = asyncio.run(_run(config, plan, prefix))
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        Console().print(_table(report))
        for problem in report.problems:
            click.echo(f"✗ {problem}")
    sys.exit(1 if report.problems else 0)


async def _run(config: StackConfig, plan: list[PlannedRequest], prefix: str) -> ReplayReport:
    narrator = Narrator()
    async with AsyncExitStack() as stack:
        settings: Settings
        if find_running(config.folder) is not None:
            settings = running_settings(config.folder)
        else:
            narrator.say(f"no stack runs in {config.folder}: starting one")
            settings = (await stack.enter_async_context(Stack(config, narrator.say))).settings
        return await run_replay(settings, plan, prefix, narrator.say)


def _table(report: ReplayReport) -> Table:
    table = Table(title="replayed", title_justify="left")
    table.add_column("")
    for name in ("requests", "input tokens", "output tokens"):
        table.add_column(name, justify="right")
    for name, counts in report.counts.items():
        table.add_row(
            name, f"{counts.requests:,}", f"{counts.input_tokens:,}", f"{counts.output_tokens:,}"
        )
    return table

"""``meter replay``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metering.errors import MeteringError
from metering.figures import figure
from streams.cli.common import (
    Narrator,
    dir_option,
    existing_options,
    json_option,
    models_option,
    running_settings,
)
from streams.replay.traces import TRACE_FORMATS, TraceFormat, read_trace

if TYPE_CHECKING:
    from rich.table import Table

    from streams.replay.plan import PlannedRequest
    from streams.replay.run import Charged, ReplayReport
    from streams.settings import Settings
    from streams.stack.config import StackConfig

INTERRUPTED = 128 + signal.SIGINT


@click.command(short_help="A trace of real traffic through the stack.")
@click.argument("trace", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--format",
    "trace_format",
    type=click.Choice(TRACE_FORMATS),
    required=True,
    help="What the trace is: Azure's or Mooncake's LLM traces, ServeGen, VTC, or JSON Lines.",
)
@click.option(
    "--speed", type=float, default=1.0, show_default=True, help="Times as fast as it was."
)
@click.option("--duration", "duration_s", type=float, help="Stop sending after so many seconds.")
@click.option(
    "--tenants",
    default="",
    help="CLIENT=TENANT,… and names for everybody else; or @FILE with the same.",
)
@click.option(
    "--model",
    default="llama_8b_sim",
    show_default=True,
    help="Model that rows go to, unless they name one. It takes token counts.",
)
@dir_option()
@existing_options
@models_option
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
    model_folders: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Send a trace's requests to Triton on their schedule, count what came out at the end, and say
    what it cost.

    Goes to the stack that runs in --dir; where none runs, starts one for as long as it takes.
    Ctrl-C stops sending and reports what there is. Exits with 1 if a request failed, is not stored,
    or has other tokens than its row; with 130 after Ctrl-C.
    """
    from streams.replay.plan import parse_tenants, plan_replay
    from streams.stack.config import StackConfig

    prefix = f"replay-{uuid.uuid4().hex[:8]}"
    plan = list(
        plan_replay(
            read_trace(trace, trace_format),
            speed=speed,
            duration_s=duration_s,
            tenants=parse_tenants(_tenants(tenants)),
            model=model,
            id_prefix=prefix,
        )
    )
    if not plan:
        raise MeteringError(
            f"{trace}: no row falls into --duration {duration_s} at --speed {speed}"
        )
    config = StackConfig(
        folder=folder,
        kafka=kafka,
        clickhouse=clickhouse,
        triton=triton,
        model_folders=model_folders,
    )
    report = asyncio.run(_run(config, plan, prefix))
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        _show(report, prefix)
    if report.load.interrupted:
        sys.exit(INTERRUPTED)
    sys.exit(1 if report.problems else 0)


def _tenants(given: str) -> str:
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise MeteringError(f"--tenants {given}: the file can't be read: {why}") from exc


async def _run(config: StackConfig, plan: list[PlannedRequest], prefix: str) -> ReplayReport:
    from streams.replay.run import run_replay
    from streams.stack.running import find_running
    from streams.stack.stack import Stack

    narrator = Narrator()
    async with AsyncExitStack() as stack:
        settings: Settings
        if find_running(config.folder) is not None:
            settings = running_settings(config.folder, config.clickhouse, config.triton)
        else:
            narrator.say(f"no stack runs in {config.folder}: starting one")
            settings = (await stack.enter_async_context(Stack(config, narrator.say))).settings
        return await run_replay(settings, plan, prefix, narrator.say, _stopped(narrator))


def _stopped(narrator: Narrator) -> asyncio.Event:
    """Set by the first Ctrl-C; the second one ends the program as usual."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def stop_sending() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        narrator.say("sending no more; Ctrl-C again to leave without a report")
        stop.set()

    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not the main thread
        loop.add_signal_handler(signal.SIGINT, stop_sending)
    return stop


def _show(report: ReplayReport, prefix: str) -> None:
    from rich.console import Console

    console = Console()
    console.print(_table(report))
    if report.charged is not None:
        console.print(_cost_table(report.charged))
        click.echo(_total(report.charged))
    else:
        own = f"startsWith(request_id, '{prefix}')"
        click.echo("ClickHouse knows what it cost, once the requests are stored:")
        click.echo(f'  meter sql "SELECT sum(cost_usd) FROM cost_requests WHERE {own}"')  # noqa: S608  it is printed
    for problem in report.problems:
        click.echo(f"✗ {problem}")


def _table(report: ReplayReport) -> Table:
    from rich.table import Table

    table = Table(title="replayed", title_justify="left")
    table.add_column("")
    for name in ("requests", "input tokens", "output tokens"):
        table.add_column(name, justify="right")
    for name, counts in report.counts.items():
        table.add_row(
            name, f"{counts.requests:,}", f"{counts.input_tokens:,}", f"{counts.output_tokens:,}"
        )
    if report.load.failed:
        table.add_row("failed", f"{report.load.failed:,}", "", "")
    return table


def _cost_table(charged: Charged) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="what it cost", title_justify="left")
    for name in ("tenant", "model"):
        table.add_column(name)
    for name in ("requests", "USD"):
        table.add_column(name, justify="right")
    for cost in charged.by_cohort:
        usd = "–" if cost.usd_per_request is None else figure(cost.cost_usd, decimals=2, digits=3)
        table.add_row(escape(cost.tenant), escape(cost.model), f"{cost.requests:,}", usd)
    return table


def _total(charged: Charged) -> str:
    lacking = charged.unpriced
    if charged.usd is None:
        return f"No cost is known: {lacking:,} requests have no price, see meter top"
    without = f"; {lacking:,} requests have no price: see meter top" if lacking else ""
    return f"{figure(charged.usd, decimals=2, digits=3)} USD in all{without}"

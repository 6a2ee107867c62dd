"""``meter demo``."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metering.errors import MeteringError
from streams.cli.common import Narrator, Seconds, dir_option, existing_options, json_option
from streams.replay.scenario import INCIDENTS, Incident

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from streams.replay.load_result import Progress

DEMO_FOLDER = Path("build/demo")
KILLABLE = ("worker", "shipper", "detector", "clickhouse", "kafka")
EVERY_S = 10.0
MARK = "made-by-meter-demo"


@click.command(short_help="Traffic, an incident, and a report.")
@click.option(
    "--incident",
    type=click.Choice(INCIDENTS),
    default="long-prompts",
    show_default=True,
    help="What goes wrong after the calm.",
)
@click.option(
    "--calm",
    "calm_s",
    type=Seconds(),
    metavar="SECONDS",
    default=65.0,
    show_default=True,
    help="How long traffic is calm.",
)
@click.option(
    "--trouble",
    "incident_s",
    type=Seconds(),
    metavar="SECONDS",
    default=35.0,
    show_default=True,
    help="How long the incident takes.",
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Seed of the random generator."
)
@click.option("--kill", type=click.Choice(KILLABLE), help="kill -9 this process in the middle.")
@dir_option(DEMO_FOLDER)
@existing_options
@json_option
def demo(
    *,
    incident: Incident,
    calm_s: float,
    incident_s: float,
    seed: int,
    kill: str | None,
    folder: Path,
    kafka: str | None,
    clickhouse: str | None,
    triton: str | None,
    as_json: bool,
) -> None:
    """Calm traffic of three tenants on four models, then an incident; then a report: what was
    served, metered, priced and stored, what a token cost, and what caused the anomaly.

    Exits with 1 if anything does not add up.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    from streams.demo.render import show
    from streams.demo.run import DemoOptions, Watcher, run_demo
    from streams.stack.checks import check_addresses
    from streams.stack.config import StackConfig

    check_addresses(StackConfig(folder, kafka=kafka, clickhouse=clickhouse, triton=triton))
    empty(folder)
    options = DemoOptions(
        folder,
        incident,
        calm_s,
        incident_s,
        seed,
        kill,
        kafka,
        clickhouse,
        triton,
    )
    narrator = Narrator()
    bar = Bar(
        TextColumn("         {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=narrator.console,
        transient=True,
        disable=not narrator.console.is_terminal,
    )
    with bar:
        watcher = Watcher(narrator.say, _traffic(bar, narrator))
        report = asyncio.run(run_demo(options, watcher))
    if as_json:
        click.echo(json.dumps(report.as_json(), ensure_ascii=False, indent=2))
    else:
        show(report, Console())
    sys.exit(1 if report.problems else 0)


def empty(folder: Path) -> None:
    """A demo begins with nothing; but only what a demo has made is removed, never a stack's data.

    Raises:
        MeteringError: a stack runs there, or the folder holds something else.
    """
    from streams.stack.running import find_running

    if find_running(folder) is not None:
        raise MeteringError(f"a stack runs in {folder}: stop it, or name another --dir")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).is_file():
            raise MeteringError(
                f"{folder} is not empty and not a demo's folder: name another --dir"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text("The next `meter demo` removes this folder.\n", encoding="utf-8")


def _traffic(bar: Bar, narrator: Narrator) -> Callable[[Progress, int], None]:
    task = bar.add_task("", total=None)
    next_line_s = EVERY_S

    def moved(progress: Progress, planned: int) -> None:
        nonlocal next_line_s
        bar.update(
            task,
            total=planned,
            completed=progress.answered,
            description=f"{progress.phase}: {progress.in_flight} in flight",
        )
        if progress.elapsed_s >= next_line_s and not narrator.console.is_terminal:
            narrator.say(f"{progress.phase}: {progress.answered} of {planned} requests answered")
            next_line_s += EVERY_S

    return moved

"""``meter top``."""

from __future__ import annotations

import json
import shlex
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metering.errors import MeteringError
from metering.figures import figure
from streams.cli.common import (
    DEFAULT_FOLDER,
    Seconds,
    dir_option,
    explain_absence,
    json_option,
    running_settings,
)

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

    from sinks.clickhouse.queries import ClickHouseReader, UnitCost, Unpriced

EVERY_S = 1.0
MOST_NAMED = 3
LEFT_OUT_FIRST = ("in/s", "out/s", "batch", "req/s")
"""Columns, in the order in which a narrow terminal goes without them."""


@click.command(short_help="Unit costs, live.")
@dir_option()
@click.option("--clickhouse", metavar="URL", help="Ask this ClickHouse.")
@click.option(
    "--last",
    "last_s",
    type=Seconds(whole=True),
    metavar="SECONDS",
    default=60,
    show_default=True,
    help="How far back.",
)
@click.option("--once", is_flag=True, help="Print the table once, and end.")
@json_option
def top(folder: Path, clickhouse: str | None, last_s: int, once: bool, as_json: bool) -> None:
    """Unit costs of the last minute per tenant and model, live, the dearest first.

    Usage that the price book has no price for is shown apart, with what is missing. Models whose
    GPU time is divided by default weights are named below the table.
    """
    from rich.console import Console
    from rich.live import Live

    from sinks.clickhouse.queries import ClickHouseReader
    from streams.targets import clickhouse_target

    settings = running_settings(folder, clickhouse=clickhouse)
    book, calibrate = settings.price_book, calibrate_command(folder)
    try:
        reader = ClickHouseReader(clickhouse_target(settings))
        if as_json:
            click.echo(json.dumps(_as_json(*_asked(reader, last_s)), indent=2))
            return
        console = Console()
        if once:
            console.print(shown(*_asked(reader, last_s), last_s, book, calibrate))
            return
        with Live(console=console, auto_refresh=False) as live:
            while True:
                now = shown(*_asked(reader, last_s), last_s, book, calibrate)
                live.update(now, refresh=True)
                time.sleep(EVERY_S)
    except KeyboardInterrupt:
        return
    except MeteringError as exc:
        raise explain_absence(folder, exc) from exc


def _asked(reader: ClickHouseReader, last_s: int) -> tuple[list[UnitCost], list[Unpriced]]:
    since_ms = time.time_ns() // 10**6 - last_s * 1000
    return reader.unit_costs(since_ms=since_ms), reader.unpriced(since_ms=since_ms)


def shown(
    costs: list[UnitCost],
    unpriced: list[Unpriced],
    last_s: int,
    price_book: Path,
    calibrate: str = "meter calibrate",
) -> RenderableType:
    """The table, and below it what has no price and why, and what is divided by default weights.
    ``calibrate`` is the command that measures the weights."""
    from rich.console import Group
    from rich.text import Text

    if not costs:
        return Text(f"no request in the last {last_s} s")
    lines: list[RenderableType] = [Text(line) for line in why_unpriced(unpriced, price_book)]
    estimated = by_default_weights(costs, calibrate)
    if estimated is not None:
        lines.append(Text(estimated))
    return Group(_Fitting(costs, last_s, unpriced), *lines)


def calibrate_command(folder: Path) -> str:
    """To be typed as it is."""
    where = "" if folder == DEFAULT_FOLDER else f" --dir {shlex.quote(str(folder))}"
    return f"meter calibrate{where}"


def by_default_weights(costs: list[UnitCost], calibrate: str) -> str | None:
    """A sentence with the models, the dearest first; ``None`` where the weights of all are
    measured."""
    models = list(dict.fromkeys(c.model for c in costs if c.requests_by_default_weights))
    if not models:
        return None
    named = ", ".join(models[:MOST_NAMED])
    if len(models) > MOST_NAMED:
        named += f" and {len(models) - MOST_NAMED} more"
    return (
        f"Default weights tell input from output in the costs of {named}; "
        f"to measure them: {calibrate}"
    )


def why_unpriced(unpriced: list[Unpriced], price_book: Path) -> list[str]:
    """Sentences: how much, and what is missing; none where everything has a price."""
    if not unpriced:
        return []
    by_reason: dict[str, list[Unpriced]] = defaultdict(list)
    for one in unpriced:
        by_reason[_reason(one)].append(one)
    lines = [f"{_amount(unpriced)} have no price and are in no cost above:"]
    lines += [f"  {_amount(some)}: {reason}" for reason, some in by_reason.items()]
    lines.append(f"Prices are in {price_book}, which is read again when it changes.")
    return lines


def _reason(one: Unpriced) -> str:
    from metering.prices import UNKNOWN, UNKNOWN_GPU

    if one.accelerator in ("", UNKNOWN, UNKNOWN_GPU):
        return f"model {one.model} names no accelerator in its config.pbtxt"
    return f"no price of accelerator {one.accelerator!r} in region {one.region!r}"


def _amount(unpriced: list[Unpriced]) -> str:
    requests = sum(one.requests for one in unpriced)
    seconds = sum(one.gpu_seconds for one in unpriced)
    return f"{requests:,} request{'s' * (requests != 1)} ({figure(seconds, decimals=2)} GPU s)"


@dataclass(frozen=True, slots=True)
class _Fitting:
    """The table with as many columns as fit in whole."""

    costs: list[UnitCost]
    last_s: int
    unpriced: Sequence[Unpriced]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for count in range(len(LEFT_OUT_FIRST) + 1):
            found = table(self.costs, self.last_s, self.unpriced, LEFT_OUT_FIRST[:count])
            if (
                console.measure(found, options=options.update(width=10_000)).maximum
                <= options.max_width
            ):
                break
        yield found


def table(
    costs: list[UnitCost],
    last_s: int,
    unpriced: Sequence[Unpriced] = (),
    left_out: Sequence[str] = (),
) -> Table:
    """One row per tenant and model; USD/h is the spend of the last ``last_s`` as an hourly rate.
    Columns that are ``left_out`` are rates and sizes, never names or money."""
    from rich.markup import escape
    from rich.table import Table

    without: Counter[tuple[str, str]] = Counter()
    for one in unpriced:
        without[one.tenant, one.model] += one.requests
    shown = Table(
        title=f"the last {last_s} s",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    for name in ("tenant", "model"):
        shown.add_column(name, no_wrap=True)
    names: tuple[str, ...] = ("req/s", "in/s", "out/s", "batch", "USD/h", "$/1M in", "$/1M out")
    names += ("unpriced",) * bool(without)
    kept = [n for n, name in enumerate(names) if name not in left_out]
    for n in kept:
        shown.add_column(names[n], justify="right", no_wrap=True)
    for cost in costs:
        row = [
            figure(cost.requests / last_s, decimals=1),
            figure(cost.input_tokens / last_s),
            figure(cost.output_tokens / last_s),
            figure(cost.mean_batch_size, decimals=1),
            figure(cost.cost_usd * 3600 / last_s, digits=3),
            _money(cost.usd_per_million_input_tokens),
            _money(cost.usd_per_million_output_tokens),
        ]
        lacking = without[cost.tenant, cost.model]
        if lacking == cost.requests:  # no cost is known
            row[names.index("USD/h")] = "–"
        row.append(f"{lacking:,}")
        shown.add_row(escape(cost.tenant), escape(cost.model), *(row[n] for n in kept))
    return shown


def _money(amount: Decimal | None) -> str:
    return "–" if amount is None else figure(amount, digits=3)


def _as_json(costs: list[UnitCost], unpriced: list[Unpriced]) -> list[dict[str, object]]:
    """Each cohort with what of it has no price."""
    return [
        {
            **_plain(cost),
            "unpriced": [
                {
                    "accelerator": one.accelerator,
                    "region": one.region,
                    "requests": one.requests,
                    "gpu_seconds": one.gpu_seconds,
                }
                for one in unpriced
                if (one.tenant, one.model) == (cost.tenant, cost.model)
            ],
        }
        for cost in costs
    ]


def _plain(cost: UnitCost) -> dict[str, object]:
    return {k: f"{v:f}" if isinstance(v, Decimal) else v for k, v in asdict(cost).items()}

"""``meter top``."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from metering.errors import MeteringError
from metering.figures import figure
from sinks.clickhouse.queries import ClickHouseReader, UnitCost
from streams.cli.common import dir_option, explain_absence, json_option, running_settings
from streams.targets import clickhouse_target

EVERY_S = 1.0


@click.command(short_help="Unit costs, live.")
@dir_option()
@click.option("--clickhouse", metavar="URL", help="Ask this ClickHouse.")
@click.option("--last", "last_s", type=int, default=60, show_default=True, help="Seconds back.")
@click.option("--once", is_flag=True, help="Print the table once, and end.")
@json_option
def top(folder: Path, clickhouse: str | None, last_s: int, once: bool, as_json: bool) -> None:
    """Unit costs of the last minute per tenant and model, live, the dearest first."""
    settings = running_settings(folder, clickhouse=clickhouse)
    try:
        reader = ClickHouseReader(clickhouse_target(settings))
        if as_json:
            costs = reader.unit_costs(since_ms=_since_ms(last_s))
            click.echo(json.dumps([_plain(cost) for cost in costs], indent=2))
            return
        console = Console()
        if once:
            console.print(table(reader.unit_costs(since_ms=_since_ms(last_s)), last_s))
            return
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(
                    table(reader.unit_costs(since_ms=_since_ms(last_s)), last_s), refresh=True
                )
                time.sleep(EVERY_S)
    except KeyboardInterrupt:
        return
    except MeteringError as exc:
        raise explain_absence(folder, exc) from exc


def table(costs: list[UnitCost], last_s: int) -> Table:
    """One row per tenant and model; USD/h is the spend of the last ``last_s`` as an hourly rate."""
    shown = Table(
        title=f"the last {last_s} s",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    for name in ("tenant", "model"):
        shown.add_column(name, no_wrap=True)
    for name in ("req/s", "in/s", "out/s", "batch", "USD/h", "$/1M in", "$/1M out"):
        shown.add_column(name, justify="right", no_wrap=True)
    for cost in costs:
        shown.add_row(
            cost.tenant,
            cost.model,
            figure(cost.requests / last_s, decimals=1),
            figure(cost.input_tokens / last_s),
            figure(cost.output_tokens / last_s),
            figure(cost.mean_batch_size, decimals=1),
            figure(cost.cost_usd * 3600 / last_s, digits=3),
            _money(cost.usd_per_million_input_tokens),
            _money(cost.usd_per_million_output_tokens),
        )
    return shown


def _money(amount: Decimal | None) -> str:
    return "–" if amount is None else figure(amount, digits=3)


def _since_ms(last_s: int) -> int:
    return time.time_ns() // 10**6 - last_s * 1000


def _plain(cost: UnitCost) -> dict[str, object]:
    return {k: f"{v:f}" if isinstance(v, Decimal) else v for k, v in asdict(cost).items()}

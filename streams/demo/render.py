"""The demo's report for people: what was served, what it cost, what happened and why."""

from __future__ import annotations

from decimal import Decimal

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from metering.figures import figure, percentage
from streams.demo.report import DemoReport
from streams.reconcile_table import verdict_table

BARS = " ▁▂▃▄▅▆▇█"


def show(report: DemoReport, console: Console) -> None:
    for part in (
        _chain(report),
        _unit_costs(report),
        verdict_table(report.verdicts),
        _incident(report),
        _next(report),
    ):
        console.print()
        console.print(part)
    for problem in report.problems:
        console.print(f"[bold red]✗[/] {problem}", highlight=False)
    if not report.problems:
        console.print(f"[bold green]✓[/] everything adds up, in {report.seconds:.0f} s")


def _chain(report: DemoReport) -> RenderableType:
    counts = {
        "answered by Triton": report.load.answered,
        "metered in usage.batches.v1": report.topics.metered,
        "priced in cost.requests.v1": report.topics.priced,
        "stored in ClickHouse": report.stored,
    }
    table = Table.grid(padding=(0, 2))
    for name, count in counts.items():
        mark = "[green]✓[/]" if count == report.load.answered else "[red]✗[/]"
        table.add_row(mark, f"{count:,}", name)
    batches = f"{report.topics.batches:,} batches of {report.mean_batch_size:.1f} on average"
    exact = (
        "the GPU time of every request sums exactly to its batch's"
        if report.topics.mismatches == 0
        else f"{report.topics.mismatches} batches do not add up"
    )
    lines: list[RenderableType] = [table, Text(f"{batches}; {exact}")]
    if report.killed is not None:
        restarts = report.restarts.get(report.killed, 0)
        lines.append(
            Text(f"{report.killed} was killed (-9) in the middle, and restarted {restarts} time(s)")
        )
    return Panel(Group(*lines), title="the way of every request", title_align="left")


def _unit_costs(report: DemoReport) -> RenderableType:
    table = Table(
        title="what a token costs, and whose it was",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    for name in ("tenant", "model"):
        table.add_column(name, no_wrap=True)
    for name in ("reqs", "batch", "USD", "$/1M in", "$/1M out", "$/1k req"):
        table.add_column(name, justify="right", no_wrap=True)
    for cost in report.unit_costs:
        per_request = cost.usd_per_request
        table.add_row(
            cost.tenant,
            cost.model,
            f"{cost.requests:,}",
            figure(cost.mean_batch_size, decimals=1),
            _money(cost.cost_usd),
            _money(cost.usd_per_million_input_tokens),
            _money(cost.usd_per_million_output_tokens),
            _money(None if per_request is None else per_request * 1000),
        )
    table.caption = (
        "llama_*_sim run no model: they take the time that one takes on an H100, sped up. "
        "Not a measurement."
    )
    table.caption_justify = "left"
    return table


def _incident(report: DemoReport) -> RenderableType:
    lines: list[RenderableType] = [_spark(report), Text("")]
    calm, during = len(report.calm_anomalies), len(report.incident_anomalies)
    lines.append(
        Text(f"anomalies: {calm} in calm traffic, {during} in the incident, "
             f"{report.delivered} delivered to the webhook")
    )  # fmt: skip
    lines.append(Text(f"what was done: {report.scenario.summary}"))
    top = report.top
    if top is None:
        lines.append(Text("what was found: nothing", style="bold red"))
    else:
        found, cause = top
        where = ", ".join(f"{k}={v}" for k, v in cause.slice.items()) or "everywhere"
        lines.append(
            Text.assemble(
                "what was found: ",
                (f"{cause.driver} in {{{where}}}", "bold yellow"),
                f", {percentage(cause.share)} of "
                f"{figure(found.usd_per_hour, decimals=2, signed=True)} USD/h",
            )
        )
        lines.append(Text(f"the lever: {cause.lever}"))
    return Panel(Group(*lines), title="the incident, and its cause", title_align="left")


def _spark(report: DemoReport) -> RenderableType:
    """One row per tenant, one bar per 10 s window; the incident's are yellow."""
    starts = sorted({s.window_start_ms for s in report.spend})
    cost = {(s.tenant, s.window_start_ms): s.cost_usd for s in report.spend}
    table = Table.grid(padding=(0, 1))
    for tenant in sorted({s.tenant for s in report.spend}):
        costs = [cost.get((tenant, start), Decimal(0)) for start in starts]
        most = max(costs) or Decimal(1)
        bars = Text()
        for start, value in zip(starts, costs, strict=True):
            bar = BARS[round(float(value / most) * (len(BARS) - 1))]
            in_incident = (start + 10_000) * 10**6 > report.incident_ns
            bars.append(bar * 3, style="yellow" if in_incident else "cyan")
        table.add_row(tenant, bars, f"up to {figure(max(costs) * 360, digits=3)} USD/h")
    return table


def _next(report: DemoReport) -> RenderableType:
    table = Table.grid(padding=(0, 4))
    at = f"--dir {report.folder}"
    question = "SELECT tenant, sum(cost_usd) FROM cost_requests GROUP BY tenant"
    table.add_row(f"meter up {at}", "the same stack again, with this data, until Ctrl-C")
    table.add_row(f'meter sql {at} "{question}"', "any question, while it runs")
    table.add_row(f"meter top {at}", "unit costs, live")
    table.add_row("docs/architecture.md", "how it works")
    return Panel(table, title="where to look next", title_align="left")


def _money(amount: Decimal | None) -> str:
    """Three digits that count: unit costs span six orders of magnitude."""
    if amount is None:
        return "–"
    return figure(amount, decimals=2, digits=3) if amount else "0"

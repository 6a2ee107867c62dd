"""The reconciliation as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from metering.figures import figure
from metering.reconciliation import OUTCOMES, Verdict


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Model by model; ``coverage`` is of requests."""
    table = _table("metered, against Triton's own counters", 1)
    for name in ("executions", "rows", "GPU s, server", "metered", "share", "coverage"):
        table.add_column(name, justify="right", no_wrap=True)
    for verdict in verdicts:
        gpu = verdict.of("gpu_ns")
        table.add_row(
            verdict.model,
            _same(verdict, "executions"),
            _same(verdict, "rows"),
            *(("–", "–", "–") if gpu is None else _gpu(gpu.server, gpu.metered, gpu.agrees)),
            f"{'[red]' if verdict.missing else ''}{verdict.coverage_percent:.2f}%",
        )
    return table


def outcome_table(verdicts: Sequence[Verdict]) -> Table:
    """What became of the requests: each model's outcomes that there were."""
    table = _table("requests by outcome", 2)
    for name in ("server", "metered", "by counters", "missing"):
        table.add_column(name, justify="right", no_wrap=True)
    for verdict in verdicts:
        for outcome in OUTCOMES:
            found = verdict.of(outcome)
            if found is not None and (found.server or found.high):
                table.add_row(
                    verdict.model,
                    outcome,
                    f"{found.server:,}",
                    f"{found.metered:,}",
                    f"{found.inferred:,}" if found.inferred else "–",
                    f"[red]{found.missing:,}" if found.missing else "–",
                )
        if verdict.uncounted:
            table.add_row(
                verdict.model, "before the queue", "–", f"{verdict.uncounted:,}", "–", "–"
            )
    return table


def _table(title: str, names: int) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("model", "outcome")[:names]:
        table.add_column(name, no_wrap=True)
    return table


def _same(verdict: Verdict, quantity: str) -> str:
    found = next(c for c in verdict.comparisons if c.quantity == quantity)
    if found.agrees:
        return f"{found.metered:,}"
    return f"[red]{found.metered:,} of {found.server:,}[/]"


def _gpu(server_ns: int, metered_ns: int, agrees: bool) -> tuple[str, str, str]:
    share = f"{figure(100 * metered_ns / server_ns, decimals=1)}%" if server_ns else "–"
    seconds = [figure(ns / 1e9, decimals=2) for ns in (server_ns, metered_ns)]
    return seconds[0], seconds[1], share if agrees else f"[red]{share}"

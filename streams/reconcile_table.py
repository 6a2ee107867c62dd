"""The reconciliation as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from metering.cloudevents import rfc3339
from metering.figures import figure
from metering.reconciliation import OUTCOMES, Comparison, Outcome, Verdict

NAMES: dict[Outcome, str] = {"answered": "executed"}
"""As people are told: what Triton counts as a success may have been cancelled, or an error."""


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Model by model; ``coverage`` is of requests. ``least`` is the share of Triton's GPU time that
    must be metered."""
    table = _table("metered, against Triton's own counters", 1)
    for name in ("executions", "rows", "GPU s", "metered", "share", "least", "coverage"):
        table.add_column(name, justify="right", no_wrap=True)
    for verdict in verdicts:
        gpu = verdict.of("gpu_ns")
        table.add_row(
            verdict.model,
            _same(verdict, "executions"),
            _same(verdict, "rows"),
            *(("–", "–", "–", "–") if gpu is None else _gpu(gpu)),
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
                    NAMES.get(outcome, outcome),
                    f"{found.server:,}",
                    f"{found.metered:,}",
                    f"{found.inferred:,}" if found.inferred else "–",
                    f"[red]{found.missing:,}" if found.missing else "–",
                )
            if outcome == "answered" and (verdict.errors or verdict.cancelled):
                _add_parts(table, verdict)
        if verdict.uncounted:
            table.add_row(
                verdict.model, "before the queue", "–", f"{verdict.uncounted:,}", "–", "–"
            )
    return table


def _add_parts(table: Table, verdict: Verdict) -> None:
    """What Triton counts as one: only what is stored tells them apart."""
    successes = verdict.of("answered")
    answered = 0 if successes is None else successes.metered - verdict.errors - verdict.cancelled
    for name, count in (
        ("answered", max(0, answered)),
        ("answered with an error", verdict.errors),
        ("cancelled while executed", verdict.cancelled),
    ):
        table.add_row("", f"  {name}", "", f"{count:,}", "", "")


def earlier_table(verdicts: Sequence[Verdict]) -> Table:
    """Servers, and loads of a model, that are gone."""
    table = _table("counted by earlier servers, and not as it is stored", 1)
    for name in ("last compared", "requests", "missing", "coverage", "what does not agree"):
        table.add_column(name, justify="left" if "agree" in name else "right")
    for verdict in verdicts:
        table.add_row(
            verdict.model,
            rfc3339(verdict.time_ns)[:19].replace("T", " "),
            f"{verdict.requests:,}",
            f"[red]{verdict.missing:,}" if verdict.missing else "–",
            f"{verdict.coverage_percent:.2f}%",
            ", ".join(verdict.discrepancies),
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


def _gpu(gpu: Comparison) -> tuple[str, str, str, str]:
    seconds = (figure(gpu.server / 1e9, decimals=2), figure(gpu.metered / 1e9, decimals=2))
    if not gpu.server:
        return (*seconds, "–", "–")
    share = _percent(gpu.metered, gpu.server)
    least = _percent(max(0, gpu.server - gpu.allowed), gpu.server)
    return (*seconds, share if gpu.agrees else f"[red]{share}", least)


def _percent(part: int, whole: int) -> str:
    return f"{figure(100 * part / whole, decimals=1)}%"

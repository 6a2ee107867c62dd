"""The reconciliation as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from streams.reconcile import Verdict


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    table = Table(title="metered, against Triton's own counters", title_justify="left")
    table.add_column("model")
    for name in ("executions", "rows", "GPU s (server)", "GPU s (metered)", "metered / server"):
        table.add_column(name, justify="right")
    for verdict in verdicts:
        ratio = verdict.gpu_time_ratio
        table.add_row(
            verdict.server.model,
            _same(verdict.server.executions, verdict.metered.executions),
            _same(verdict.server.rows, verdict.metered.rows),
            f"{verdict.server.gpu_ns / 1e9:.2f}",
            f"{verdict.metered.gpu_ns / 1e9:.2f}",
            "–" if ratio is None else f"{'' if verdict.gpu_time_matches else '[red]'}{ratio:.1%}",
        )
    return table


def _same(server: int, metered: int) -> str:
    return f"{metered:,}" if server == metered else f"[red]{metered:,} of {server:,}[/]"

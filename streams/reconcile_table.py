"""The reconciliation as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from streams.reconcile import Verdict


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    title = "metered, against Triton's own counters"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("model", no_wrap=True)
    for name in ("executions", "rows", "GPU s, server", "metered", "share"):
        table.add_column(name, justify="right", no_wrap=True)
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

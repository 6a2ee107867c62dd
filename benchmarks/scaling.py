"""How many of everything at 10^4 to 10^7 requests a second: ``make scaling`` prints the tables of
docs/scaling.md, with what was measured on this machine where it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

from benchmarks.scaling_plan import (
    RATES,
    SOURCES,
    Assumed,
    Measured,
    Plan,
    breaks,
    measured,
    plan,
)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB" if count < 1000 else f"{count:,.0f} PB"


ROWS: Sequence[tuple[str, Callable[[Plan], str]]] = (
    ("workers, a core each", lambda p: f"{p.workers:,}"),
    ("the same, were every batch one request", lambda p: f"{p.workers_of_single_requests:,}"),
    ("partitions of `usage.batches.v1`", lambda p: f"{p.usage_partitions:,}"),
    ("cohorts (assumed)", lambda p: f"{p.cohorts:,}"),
    ("additions a second to the windows", lambda p: f"{p.additions_per_s:,.0f}"),
    ("partitions of `meter.additions.v1`", lambda p: f"{p.window_partitions:,}"),
    ("window rows a second", lambda p: f"{p.window_rows_per_s:,.0f}"),
    ("state of a window partition", lambda p: _bytes(p.window_state_bytes)),
    ("into Kafka, a second", lambda p: _bytes(p.kafka_bytes_per_s)),
    ("of it into `cost.windows.v1`", lambda p: _bytes(p.windows_topic_bytes_per_s)),
    ("kept by Kafka, with replicas", lambda p: _bytes(p.kafka_retained_bytes)),
    ("into ClickHouse, a second", lambda p: _bytes(p.stored_bytes_per_s)),
    ("kept by ClickHouse, without replicas", lambda p: _bytes(p.stored_bytes_kept)),
    ("ClickHouse shards", lambda p: f"{p.shards:,}"),
    ("cores busy with inserts, of 16 of a shard", lambda p: f"{p.cores_per_shard:.2g}"),
    ("parts a second on a shard, of lines", lambda p: f"{p.parts_per_shard_s:,.3g}"),
    ("the same, of windows", lambda p: f"{p.window_parts_per_shard_s:,.3g}"),
    ("heartbeats a second", lambda p: f"{p.heartbeats_per_s:,.0f}"),
    ("age of a request when stored, in calm", lambda p: f"{p.lag_s:.2g} s"),
    (
        "messages behind after an hour's outage",
        lambda p: f"{p.messages_behind_after_an_hour:,.0f}",
    ),
)


def table(plans: Sequence[Plan]) -> str:
    """In Markdown, a column for each rate."""
    head = ["| requests a second | " + " | ".join(f"{p.rate:,}" for p in plans) + " |"]
    head.append("|---|" + "---|" * len(plans))
    return "\n".join(
        head + [f"| {name} | " + " | ".join(show(p) for p in plans) + " |" for name, show in ROWS]
    )


def constants(known: Measured, assumed: Assumed) -> str:
    """In Markdown: what was measured, and what is assumed or chosen."""
    lines = ["| measured | value | by |", "|---|---|---|"]
    for name, (file, figure) in SOURCES.items():
        lines.append(f"| {name} | {getattr(known, name):,.6g} | {file}, {figure} |")
    lines += ["", "| assumed or chosen | value |", "|---|---|"]
    lines += [f"| {f.name} | {getattr(assumed, f.name):,.6g} |" for f in fields(assumed)]
    return "\n".join(lines)


def sections(known: Measured, assumed: Assumed) -> Mapping[str, str]:
    plans = [plan(rate, known, assumed) for rate in RATES]
    beyond = "\n".join(
        f"- **{p.rate:,}**: {'; '.join(breaks(p, assumed)) or 'nothing'}" for p in plans
    )
    return {"plan": table(plans), "beyond": beyond, "constants": constants(known, assumed)}


def main() -> None:
    for text in sections(measured(), Assumed()).values():
        print(text, end="\n\n")


if __name__ == "__main__":
    main()

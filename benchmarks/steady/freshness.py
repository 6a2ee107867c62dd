"""From what was sent and what was seen of it to figures. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Figure, none_of
from benchmarks.steady.match import (
    Counted,
    Group,
    Lines,
    appended_by_group,
    percentiles,
    window_delays,
)
from benchmarks.steady.sent import Sent, between
from benchmarks.steady.templates import Template

TARGETS_MS = {"sql": 1000, "lines": 250, "windows": 1500}
RATE_WITHIN = 0.01
_RANKS = ("p50", "p95", "p99", "max")
NS_PER_MS = 10**6


@dataclass(frozen=True, slots=True)
class Watched:
    """A run. Messages that were appended from ``first_ns`` to before ``end_ns`` are measured; the
    others are counted, as rows of windows count them too."""

    templates: Sequence[Template]
    sent: Sent
    first_ns: int
    end_ns: int
    in_sql: Lines
    delivered: Lines
    counted: Mapping[Group, Counted]
    window_s: int

    @property
    def measured(self) -> NDArray[np.bool_]:
        return between(self.sent, self.first_ns, self.end_ns)


def figures_of(run: Watched, rate: float) -> dict[str, Figure]:
    """The delays, what was never seen, and whether the load was the one that is claimed."""
    figures: dict[str, Figure] = {}
    measured = run.measured
    of_template = np.array([len(t.tenants) for t in run.templates])
    requests = int(of_template[run.sent["template"][measured]].sum())
    per_s = requests / ((run.end_ns - run.first_ns) / 1e9)
    figures["rate"] = Figure(
        round(per_s), "requests/s", f"{rate:,.0f} ± 1 %", abs(per_s / rate - 1) <= RATE_WITHIN
    )
    figures |= _of_lines("sql", run, run.in_sql)
    figures |= _of_lines("lines", run, run.delivered)
    delays, missing = window_delays(appended_by_group(_messages(run), run.window_s), run.counted)
    figures |= _of("windows", [ns for ns, _ in delays], [n for _, n in delays])
    figures["windows_missing"] = none_of(missing, "requests")
    return figures | _of_load(run.sent[measured])


def _of_lines(name: str, run: Watched, lines: Lines) -> dict[str, Figure]:
    """A message is seen when all of its lines are."""
    delays, missing = [], 0
    for row in run.sent[run.measured]:
        template = run.templates[row["template"]]
        identity = template.source.name, int(row["sequence"])
        seen_ns = lines.complete_ns(identity, len(template.tenants))
        if seen_ns is None:
            missing += 1
        else:
            delays.append(seen_ns - int(row["appended_ms"]) * NS_PER_MS)
    return _of(name, delays) | {
        f"{name}_missing": none_of(missing, "messages"),
        f"{name}_repeated": Figure(lines.repeated, "lines"),
    }


def _of(
    name: str, delays: Sequence[int], weights: Sequence[int] | None = None
) -> dict[str, Figure]:
    if not delays:
        return {f"{name}_seen": Figure(0, "messages", "> 0", False)}
    figures: dict[str, Figure] = {}
    for rank, ms in zip(_RANKS, percentiles(delays, weights), strict=True):
        target = TARGETS_MS[name] if rank == "p99" else None
        figures[f"{name}_{rank}"] = Figure(
            round(ms, 1),
            "ms",
            None if target is None else f"≤ {target}",
            None if target is None else ms <= target,
        )
    return figures


def _of_load(sent: Sent) -> dict[str, Figure]:
    """How far the sender was behind its plan, and how long Kafka took to append and to answer."""
    behind = sent["end_ns"] - sent["planned_ns"]
    append = sent["appended_ms"] * NS_PER_MS - sent["end_ns"]
    answer = sent["acked_ns"] - sent["end_ns"]
    figures: dict[str, Figure] = {}
    for name, values in (("behind", behind), ("append", append), ("answer", answer)):
        found = dict(zip(_RANKS, percentiles(values), strict=True))
        figures |= {
            f"sender_{name}_{rank}": Figure(round(found[rank], 1), "ms")
            for rank in ("p50", "p99", "max")
        }
    return figures


def _messages(run: Watched) -> Iterator[tuple[int, int, bool, list[Group]]]:
    for row, measured in zip(run.sent, run.measured, strict=True):
        template = run.templates[row["template"]]
        yield (
            int(row["appended_ms"]) * NS_PER_MS,
            int(row["end_ns"]),
            bool(measured),
            [template.cohort(tenant) for tenant in template.tenants],
        )

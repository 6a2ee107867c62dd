"""Do ClickHouse's lines and windows equal what was sent, counted anew from what was sent alone?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from benchmarks.fuzz.batches import Batch
from benchmarks.fuzz.journal import Journal
from sinks.clickhouse.queries import ClickHouseReader
from streams.settings import Settings
from streams.targets import clickhouse_target

USD_PER_NS = Decimal("1e-12")
WINDOW_SECONDS = (10, 60)
"""In longer ones late batches may count, as it happens."""
_NS = 10**9
_LINES = """
SELECT source, sequence, position, tenant, model, status, input_tokens, output_tokens, gpu_ns,
    cost_usd, toUnixTimestamp64Nano(time)
FROM cost_requests ORDER BY source, sequence, position
"""
_WINDOWS = """
SELECT window_seconds, toUnixTimestamp(window_start), tenant, model,
    sum(requests), sum(refused_requests), sum(input_tokens), sum(output_tokens), sum(gpu_ns),
    sum(cost_usd)
FROM cost_windows WHERE window_seconds IN (10, 60)
GROUP BY window_seconds, window_start, tenant, model
"""
Key = tuple[str, int]
"""A batch: source and sequence."""
Line = tuple[object, ...]
Cohort = tuple[int, int, str, str]
"""Seconds and start of a window, tenant, model."""
Sums = tuple[object, ...]


@dataclass(slots=True)
class Stored:
    """Batches that are missing, that nobody sent, and whose lines are other than they should be."""

    lines: int = 0
    missing: int = 0
    unknown: int = 0
    wrong: int = 0
    windows: int = 0
    wrong_windows: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        return not (self.missing or self.unknown or self.wrong or self.wrong_windows)


def read_stored(settings: Settings, journal: Journal) -> Stored:
    """Raises QueryFailed: ClickHouse does not answer."""
    reader = ClickHouseReader(clickhouse_target(settings))
    try:
        return compare(journal, reader.rows(_LINES), reader.rows(_WINDOWS))
    finally:
        reader.close()


def compare(journal: Journal, lines: Iterable[Line], windows: Iterable[Line]) -> Stored:
    found, own = Stored(), defaultdict[Key, list[Line]](list)
    for source, sequence, *line in lines:
        own[str(source), int(str(sequence))].append(tuple(line))
        found.lines += 1
    for key, (batch, _) in journal.batches.items():
        there = own.pop(key, None)
        if there is None:
            found.missing += 1
            found.examples.append(f"missing: {batch}"[:300])
        elif there != list(_lines(batch)):
            found.wrong += 1
            found.examples.append(f"wrong: {there[:3]} of {batch}"[:600])
    found.unknown = len(own)
    found.examples += [f"unknown: {key}" for key in own]
    told: dict[Any, Line] = {row[:4]: row[4:] for row in windows}
    counted: Mapping[Any, Line] = _windows(
        batch for batch, counts in journal.batches.values() if counts
    )
    found.windows = len(counted)
    for cohort in counted.keys() | told.keys():
        if counted.get(cohort) != told.get(cohort):
            found.wrong_windows += 1
            found.examples.append(f"{cohort}: {told.get(cohort)}, not {counted.get(cohort)}")
    del found.examples[20:]
    return found


def _lines(batch: Batch) -> Iterator[Line]:
    for n, part in enumerate(batch.parts):
        yield (
            n, part.tenant, batch.model, part.status, part.input_tokens, part.output_tokens,
            part.gpu_ns, part.gpu_ns * USD_PER_NS, batch.end_epoch_ns,
        )  # fmt: skip


def _windows(batches: Iterable[Batch]) -> dict[Cohort, Sums]:
    counted: dict[Cohort, list[int]] = defaultdict(lambda: [0] * 5)
    for batch in batches:
        second = batch.end_epoch_ns // _NS
        for seconds in WINDOW_SECONDS:
            for part in batch.parts:
                sums = counted[seconds, second - second % seconds, part.tenant, batch.model]
                if part.status not in ("ok", "cache_hit"):
                    sums[1] += 1
                    continue
                sums[0] += 1
                sums[2] += part.input_tokens
                sums[3] += part.output_tokens
                sums[4] += part.gpu_ns
    return {cohort: (*sums, sums[4] * USD_PER_NS) for cohort, sums in counted.items()}

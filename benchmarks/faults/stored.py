"""What is in ClickHouse: lines and windows, and windows that are summed anew from the lines."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from benchmarks.faults.load import Told
from sinks.clickhouse.queries import ClickHouseReader
from streams.settings import Settings
from streams.targets import clickhouse_target

CLOSED_AFTER_S = 15.0
"""A window that ended so long ago is final: 2 s of disorder, 3 s of quiet, and leisure."""
Batch = tuple[str, int]
"""Source and sequence."""
Part = tuple[str, str, int, int]
"""Of a request in its batch: its id, its tenant, its GPU time, and once more as input + output."""

# A request that never reached its model has a line too; that is no answer.
_REQUESTS = """
SELECT request_id, tenant, model, input_tokens, output_tokens FROM cost_requests
WHERE startsWith(request_id, {prefix:String}) AND (executed OR status = 'cache_hit')
"""
_LINES = """
SELECT source, sequence, position, request_id, tenant, gpu_ns, input_gpu_ns + output_gpu_ns
FROM cost_requests ORDER BY source, sequence, position
"""
_UNPRICED = "SELECT count() FROM cost_requests WHERE pricing_status != 'priced'"
# What never reached its model counts apart from the rest; see metering.windows.Tally.
_FROM_LINES = """
SELECT toUnixTimestamp(toStartOfInterval(time, toIntervalSecond({seconds:UInt32}))) AS start,
    tenant, model,
    countIf(counted), countIf(NOT executed AND counted), countIf(NOT counted),
    countIf(counted AND retry_of IS NOT NULL), countIf(counted AND pricing_status != 'priced'),
    sumIf(batch_size, counted), sum(input_tokens), sum(cached_input_tokens), sum(output_tokens),
    sum(gpu_ns), sum(input_gpu_ns), sum(output_gpu_ns), sum(padding_gpu_ns),
    sumIf(gpu_ns, status IN ('error', 'failed', 'cancelled')),
    ifNull(sum(cost_usd), 0), ifNull(sum(input_cost_usd), 0), ifNull(sum(output_cost_usd), 0)
FROM (SELECT *, executed OR status = 'cache_hit' AS counted FROM cost_requests)
GROUP BY start, tenant, model
"""
_FROM_WINDOWS = """
SELECT toUnixTimestamp(window_start), tenant, model,
    sum(requests), sum(cache_hits), sum(refused_requests), sum(retries), sum(unpriced_requests),
    sum(batch_size_sum), sum(input_tokens), sum(cached_input_tokens), sum(output_tokens),
    sum(gpu_ns), sum(input_gpu_ns), sum(output_gpu_ns), sum(padding_gpu_ns), sum(wasted_gpu_ns),
    sum(cost_usd), sum(input_cost_usd), sum(output_cost_usd)
FROM cost_windows WHERE window_seconds = {seconds:UInt32}
GROUP BY window_start, tenant, model
"""
_OPEN = """
SELECT window_seconds, toUnixTimestamp(window_start), tenant, model FROM cost_windows
WHERE NOT final AND toUnixTimestamp(window_start) + window_seconds < {before:Int64}
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """``requests`` are those of a prefix: how often each is there, and what its line says."""

    requests: Counter[str]
    said: dict[str, Told]
    batches: dict[Batch, list[Part]]
    windows: list[str]
    unpriced: int


def read_stored(settings: Settings, prefix: str) -> Stored:
    """Raises QueryFailed: ClickHouse does not answer."""
    reader = ClickHouseReader(clickhouse_target(settings))
    try:
        rows = reader.rows(_REQUESTS, {"prefix": prefix})
        batches: dict[Batch, list[Part]] = {}
        for source, sequence, _, *part in reader.rows(_LINES):
            batches.setdefault((source, sequence), []).append(tuple(part))
        return Stored(
            requests=Counter(row[0] for row in rows),
            said={row[0]: Told(*row[1:]) for row in rows},
            batches=batches,
            windows=_wrong_windows(reader),
            unpriced=int(reader.rows(_UNPRICED)[0][0]),
        )
    finally:
        reader.close()


def _wrong_windows(reader: ClickHouseReader) -> list[str]:
    wrong = []
    for seconds in (10, 60):
        summed, told = (
            {row[:3]: row[3:] for row in reader.rows(sql, {"seconds": seconds})}
            for sql in (_FROM_LINES, _FROM_WINDOWS)
        )
        wrong += [
            f"{seconds} s at {start} of {tenant} × {model}"
            for start, tenant, model in sorted(summed.keys() | told.keys())
            if summed.get((start, tenant, model)) != told.get((start, tenant, model))
        ]
    before = int(time.time() - CLOSED_AFTER_S)
    return wrong + [
        f"{seconds} s at {start} of {tenant} × {model}, which is not final"
        for seconds, start, tenant, model in reader.rows(_OPEN, {"before": before})
    ]

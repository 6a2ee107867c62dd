"""Measured batches, for calibration: the lines of a batch, put together again."""

from __future__ import annotations

from collections import defaultdict

from metering.calibration import MeasuredBatch
from sinks.clickhouse.queries import ClickHouseReader

MOST_BATCHES = 50_000

# Whole batches without errors only: the time of a failed request tells nothing about its tokens.
# A request's longest row is known as the request's mean: its lines don't tell rows apart.
_BATCHES = """
SELECT any(model) AS the_model, any(accelerator) AS the_accelerator,
    sum(gpu_ns) * toUInt128(any(speedup)) AS took_ns, sum(rows) AS all_rows,
    sum(input_tokens - cached_input_tokens), sum(output_tokens),
    max(intDiv(input_tokens - cached_input_tokens + rows - 1, rows)),
    max(intDiv(output_tokens + rows - 1, rows))
FROM cost_requests
WHERE time >= fromUnixTimestamp64Milli({since_ms:Int64})
    AND (empty({models:Array(String)}) OR has({models:Array(String)}, model))
GROUP BY source, sequence
HAVING all_rows = any(batch_size) AND took_ns > 0 AND countIf(status != 'ok') = 0
ORDER BY max(time) DESC, source, sequence
LIMIT {most:UInt64} BY the_model, the_accelerator
"""


def measured_batches(
    reader: ClickHouseReader,
    *,
    models: tuple[str, ...] = (),
    since_ms: int = 0,
    most: int = MOST_BATCHES,
) -> dict[tuple[str, str], list[MeasuredBatch]]:
    """By model and accelerator, the newest ``most`` of each; without ``models``, of all.

    Raises:
        QueryFailed: ClickHouse did not answer.
    """
    parameters = {"models": list(models), "since_ms": since_ms, "most": most}
    found: dict[tuple[str, str], list[MeasuredBatch]] = defaultdict(list)
    for model, accelerator, *numbers in reader.rows(_BATCHES, parameters):
        found[model, accelerator].append(MeasuredBatch(*numbers))
    return dict(sorted(found.items()))

"""Counters and usage at their bounds stop no reconciler: ClickHouse takes them, or they are refused
where they are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from metering.capacity import CapacityHeartbeat
from metering.lines import CostLines
from metering.prices import PriceBook
from metering.pricing import price_batch
from metering.usage import UsageBatch
from sinks.clickhouse.calibration import measured_batches
from sinks.clickhouse.capacity import CapacityWriter
from sinks.clickhouse.connection import ClickHouseTarget
from sinks.clickhouse.queries import ClickHouseReader
from sinks.clickhouse.schema import migrate
from streams.reconciler.judging import Judging

pytestmark = pytest.mark.stack
MakeBatch = Callable[..., UsageBatch]
MOST = 2**63 - 1
NOON_NS = 1_780_000_000 * 10**9
LARGEST = 2**53 - 1
DEVICE = {
    "device": "gpu0", "accelerator": "H100", "boot": "b", "wall_ns": MOST, "busy_ns": MOST,
    "idle_ns": 0, "lost_ns": MOST, "running": 2**32 - 1,
}  # fmt: skip
INSTANCE = {
    "source": "s", "model": "tiny", "device": "gpu0", "wall_ns": MOST, "busy_ns": MOST,
    "batch_ns": MOST, "idle_ns": MOST, "executions": MOST,
}  # fmt: skip
MODEL: dict[str, Any] = {
    "model": "tiny", "version": "1", "successes": 0, "cache_hits": 0, "cache_misses": MOST,
    "queue_ns": MOST, "failures": {"rejected": MOST},
    "batch_stats": [{"size": 1, "executions": MOST, "compute_infer_ns": MOST}],
}  # fmt: skip


def beat(time_ns: int = NOON_NS, sequence: int = 0, **changes: Any) -> CapacityHeartbeat:
    values = {
        "source": "h/b/sentinel", "sequence": sequence, "host": "h", "boot_id": "boot",
        "time_ns": time_ns, "asked_ns": time_ns, "triton_answers": True, "devices": [DEVICE],
        "instances": [INSTANCE], "models": [MODEL], **changes,
    }  # fmt: skip
    return CapacityHeartbeat.model_validate_json(json.dumps(values))


@pytest.fixture
def target(target: ClickHouseTarget) -> ClickHouseTarget:
    migrate(target)
    return target


@pytest.fixture
def writer(target: ClickHouseTarget) -> Iterator[CapacityWriter]:
    found = CapacityWriter(target)
    yield found
    found.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"devices": [DEVICE | {"running": 2**32}]},
        {"models": [MODEL | {"successes": 1}]},
        {"models": [MODEL | {"cache_hits": 1}]},
        {"models": [MODEL | {"failures": {"rejected": MOST, "other": 1}}]},
        {"models": [MODEL | {"batch_stats": [{"size": 2, "executions": 2**62,
         "compute_infer_ns": 0}]}]},
        {"models": [MODEL | {"batch_stats": [{"size": 0, "executions": 2**62,
         "compute_infer_ns": 0}] * 2}]},
        {"models": [MODEL | {"batch_stats": [{"size": 0, "executions": 0,
         "compute_infer_ns": 2**62}] * 2}]},
    ],
)  # fmt: skip
def test_sums_of_counters_that_no_column_holds_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        beat(**changes)


@pytest.mark.parametrize("time_ns", [0, 1, NOON_NS, MOST])
def test_the_largest_counters_are_stored_and_judged(
    target: ClickHouseTarget, writer: CapacityWriter, time_ns: int
) -> None:
    judging = Judging(target)
    for sequence, last_ns in enumerate((max(0, time_ns - 1), time_ns)):
        heard = beat(last_ns, sequence)
        writer.write_heartbeats([heard])
        verdicts = judging.judge(heard)
        writer.write_verdicts(verdicts, MOST)
    judging.close()
    after_a_restart = Judging(target)
    after_a_restart.judge(beat(MOST, 2))
    after_a_restart.close()


def test_more_stored_gpu_time_than_a_server_counts_is_judged(
    target: ClickHouseTarget, writer: CapacityWriter, batch_of: MakeBatch
) -> None:
    """Of 2,049 batches, which leave 64 bits."""
    line = price_batch(batch_of(gpu_ns=LARGEST, wall_ns=LARGEST), PriceBook([]))[0]
    lines = [line.model_copy(update={"sequence": n}) for n in range(2_049)]
    writer.write_lines(CostLines.of(lines))
    heard = beat(
        NOON_NS + 10**10,
        models=[MODEL | {"failures": None, "batch_stats": []}],
    )
    judging = Judging(target)
    (verdict,) = judging.judge(heard)
    judging.close()
    writer.write_verdicts([verdict], NOON_NS)
    found = verdict.of("gpu_ns")
    assert found is not None
    assert (found.low, found.high, found.missing, found.surplus) == (MOST, MOST, 0, MOST)


def test_the_largest_batch_is_measured_as_long_as_it_took(
    target: ClickHouseTarget, writer: CapacityWriter, batch_of: MakeBatch
) -> None:
    batch = batch_of(gpu_ns=LARGEST, speedup=2**32 - 1)
    writer.write_lines(CostLines.of(price_batch(batch, PriceBook([]))))
    reader = ClickHouseReader(target)
    ((measured,),) = measured_batches(reader).values()
    reader.close()
    assert measured.gpu_ns == LARGEST * (2**32 - 1)

"""Heartbeats that keep to every law and are odd all the same, stored and compared for real."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from metering.capacity import BatchStats, CapacityHeartbeat, DeviceCapacity, Failures, ModelCounters
from metering.lines import CostLines
from metering.prices import parse_price_book
from metering.pricing import price_batch
from metering.usage import UsageBatch
from sinks.clickhouse.capacity import CapacityReader, CapacityWriter
from sinks.clickhouse.connection import ClickHouseTarget
from sinks.clickhouse.schema import migrate
from streams.reconciler.judging import Judging

pytestmark = pytest.mark.stack

NS = 10**9
NOW_NS = 1_780_000_020 * NS
MOST = 2**63 - 1
ODD = [
    "'", '"', "\\",
    "\\N", "\\'", "`", "a\0b", "\0", "\n", "\t", "\r\n", "{x:String}", "%s", "%(a)s",
    "]", "['a']", "a,b", "\u202e", "\u200d", "\U0001f600", " ", "\ufeff", "x" * 256, "NULL", "--",
]  # fmt: skip


@pytest.fixture
def target(target: ClickHouseTarget) -> ClickHouseTarget:
    migrate(target)
    return target


def counters(model: str, version: str, count: int = 1) -> ModelCounters:
    return ModelCounters(
        model=model, version=version, successes=count, failures=Failures(), cache_hits=0,
        cache_misses=count, queue_ns=count,
        batch_stats=(BatchStats(size=1, executions=count, compute_infer_ns=count),),
    )  # fmt: skip


def beat(text: str, time_ns: int, *models: ModelCounters, asked_ns: int = 0) -> CapacityHeartbeat:
    device = DeviceCapacity(
        device=text, accelerator=text, boot=text, wall_ns=MOST, busy_ns=MOST, idle_ns=0,
        lost_ns=MOST, running=2**32 - 1, board=text, read_ns=time_ns,
    )  # fmt: skip
    return CapacityHeartbeat(
        source=text, sequence=MOST, host=text, boot_id=text, time_ns=time_ns,
        asked_ns=max(asked_ns, time_ns), triton_answers=True, devices=(device,), models=models,
    )  # fmt: skip


def compared(target: ClickHouseTarget, *beats: CapacityHeartbeat) -> list[tuple[str, str, int]]:
    """As the reconciler does: stored, compared, and the verdict stored and found again."""
    writer, judging, reader = CapacityWriter(target), Judging(target), CapacityReader(target)
    found = []
    try:
        for each in beats:
            writer.write_heartbeats([each])
            verdicts = judging.judge(each)
            writer.write_verdicts(verdicts, NOW_NS)
            found += [(v.model, v.version, v.missing) for v in verdicts]
            again = reader.last_verdicts(each.boot_id or "")
            assert set(again) >= {(v.model, v.version) for v in verdicts}
    finally:
        for part in (writer, judging, reader):
            part.close()
    return found


def test_names_of_any_letters_are_stored_and_compared(target: ClickHouseTarget) -> None:
    for text in ODD:
        models = [counters(text, text), counters("m", text)]
        assert compared(target, beat(text, NOW_NS, *models)) == [(text, text, 1), ("m", text, 1)]


@pytest.mark.parametrize("time_ns", [0, 1, NS, NOW_NS], ids=str)
@pytest.mark.parametrize("count", [0, 1, MOST], ids=str)
def test_times_and_counts_at_their_bounds_are_stored_and_compared(
    target: ClickHouseTarget, time_ns: int, count: int
) -> None:
    """Counters that fall, and begin anew, at bounds as well."""
    beats = [
        beat("h", time_ns, counters("m", "1", count), asked_ns=NOW_NS),
        beat("h", NOW_NS + NS, counters("m", "1", MOST), asked_ns=NOW_NS + 2 * NS),
        beat("h", NOW_NS + 3 * NS, counters("m", "1", 0)),
        beat("h", NOW_NS + 4 * NS, counters("m", "1", count)),
    ]
    assert [missing for _, _, missing in compared(target, *beats)] == [count, MOST, 0, count]


def test_stored_usage_whose_sum_leaves_64_bits_is_compared(
    target: ClickHouseTarget, batch_of: Callable[..., UsageBatch]
) -> None:
    """2,100 batches of 2^53 - 1 ns are more than 2^64."""
    book = parse_price_book(
        '[[gpu_hour]]\nid = "p"\naccelerator = "cpu"\nregion = "*"\n'
        'usd_per_gpu_hour = "1"\neffective_from = 2020-01-01T00:00:00Z\n',
        "book",
    )
    most = 2**53 - 1
    batch = batch_of(0, boot_id="h", gpu_ns=most, wall_ns=most, end_epoch_ns=NOW_NS)
    writer = CapacityWriter(target)
    writer.write_all_lines(
        [
            CostLines.of(price_batch(batch.model_copy(update={"sequence": n}), book))
            for n in range(2100)
        ]
    )
    writer.close()
    judged = beat("h", NOW_NS + 10 * NS, counters(batch.model, batch.model_version))
    judging = Judging(target)
    (verdict,) = judging.judge(judged)
    judging.close()
    gpu = verdict.of("gpu_ns")
    assert gpu is not None
    assert (gpu.low, gpu.high, gpu.surplus > 0) == (MOST, MOST, True)

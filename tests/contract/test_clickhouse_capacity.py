"""Heartbeats and verdicts in ClickHouse, and what is stored of a server, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from metering.capacity import (
    BatchStats,
    CapacityHeartbeat,
    DeviceCapacity,
    Failures,
    InstanceCapacity,
    ModelCounters,
)
from metering.counted import Question
from metering.lines import CostLines
from metering.prices import parse_price_book
from metering.pricing import price_batch
from metering.reconciliation import Bounds, Snapshot, Tally, judge
from metering.usage import UsageBatch
from sinks.clickhouse.capacity import CapacityReader, CapacityWriter
from sinks.clickhouse.connection import ClickHouseTarget
from sinks.clickhouse.schema import migrate
from tests.contract.conftest import ClickHouse

pytestmark = pytest.mark.stack

MakeBatch = Callable[..., UsageBatch]
NS = 10**9
NOON_NS = 1_780_000_020 * NS
"""On a whole minute."""
BOOK = parse_price_book(
    '[[gpu_hour]]\nid = "p"\naccelerator = "cpu"\nregion = "*"\n'
    'usd_per_gpu_hour = "1"\neffective_from = 2020-01-01T00:00:00Z\n',
    "book",
)
EVERYTHING = Question(0, 0, 0, 2**62, 2**62)


class Store:
    def __init__(self, target: ClickHouseTarget, server: ClickHouse) -> None:
        self.writer = CapacityWriter(target)
        self.reader = CapacityReader(target)
        self.server = server

    def write(self, *batches: UsageBatch) -> None:
        for batch in batches:
            self.writer.write_lines(CostLines.of(price_batch(batch, BOOK)))


@pytest.fixture
def store(clickhouse: ClickHouse) -> Iterator[Store]:
    target = clickhouse.target(clickhouse.database)
    migrate(target)
    found = Store(target, clickhouse)
    yield found
    found.reader.close()
    found.writer.close()


def device(wall_ns: int, idle_ns: int, **changes: Any) -> DeviceCapacity:
    values = {
        "device": "gpu0", "accelerator": "H100", "boot": "b", "running": 1,
        "wall_ns": wall_ns, "busy_ns": wall_ns - idle_ns, "idle_ns": idle_ns, **changes,
    }  # fmt: skip
    return DeviceCapacity(**values)


def beat(time_ns: int, *devices: DeviceCapacity, **changes: Any) -> CapacityHeartbeat:
    values = {
        "source": "h/b/sentinel", "sequence": time_ns, "host": "h", "boot_id": "boot",
        "time_ns": time_ns, "asked_ns": time_ns + 5, "triton_answers": True, "devices": devices,
        **changes,
    }  # fmt: skip
    return CapacityHeartbeat(**values)


COUNTERS = ModelCounters(
    model="tiny", version="1", successes=5, failures=Failures(rejected=1, backend=2),
    cache_hits=1, cache_misses=4, queue_ns=2**62,
    batch_stats=(BatchStats(size=1, executions=2, compute_infer_ns=30),
                 BatchStats(size=4, executions=1, compute_infer_ns=2**61)),
)  # fmt: skip


def test_a_heartbeat_that_is_written_again_changes_nothing(store: Store) -> None:
    instance = InstanceCapacity(
        source="h/boot/1/tiny_0", model="tiny", device="gpu0", wall_ns=10, busy_ns=3, batch_ns=6,
        idle_ns=4, executions=2,
    )  # fmt: skip
    silent = COUNTERS.model_copy(update={"version": "2", "failures": None})
    whole = beat(NOON_NS, device(10, 4), instances=(instance,), models=(COUNTERS, silent))
    for _ in range(2):
        store.writer.write_heartbeats([whole, beat(NOON_NS + NS, device(20, 9))])
    rows = store.reader.rows
    assert rows("SELECT wall_ns, busy_ns, idle_ns, running FROM capacity_devices") == [
        (10, 6, 4, 1), (20, 11, 9, 1),
    ]  # fmt: skip
    assert rows("SELECT instance_source, idle_ns, executions, boot_id FROM capacity_instances") == [
        ("h/boot/1/tiny_0", 4, 2, "boot")
    ]
    assert rows(
        "SELECT model_version, executions, rows, compute_infer_ns, successes, cache_hits, "
        "failures_rejected, failures_backend, queue_ns, batch_stats.2 FROM capacity_models "
        "ORDER BY model_version"
    ) == [
        ("1", 3, 6, 2**61 + 30, 5, 1, 1, 2, 2**62, [2, 1]),
        ("2", 3, 6, 2**61 + 30, 5, 1, None, None, 2**62, [2, 1]),
    ]


def minutes(store: Store) -> list[tuple[Any, ...]]:
    return store.reader.rows(
        "SELECT toUnixTimestamp(minute), device, idle_ns, busy_ns, wall_ns "
        "FROM capacity_device_minutes ORDER BY minute, device"
    )


def test_idle_time_is_cut_at_the_minutes_and_sums_to_the_whole(store: Store) -> None:
    minute = NOON_NS // NS
    store.writer.write_heartbeats(
        [
            beat(NOON_NS - 20 * NS, device(100, 50)),
            beat(NOON_NS - 10 * NS, device(100 + 10 * NS, 50 + 3 * NS)),
            beat(NOON_NS + 20 * NS, device(100 + 40 * NS, 50 + 3 * NS + 10)),
            beat(NOON_NS + 80 * NS, device(100 + 100 * NS, 50 + 63 * NS + 10)),
        ]
    )
    assert minutes(store) == [
        (minute - 60, "gpu0", 3 * NS + 3, 17 * NS - 3, 20 * NS),
        (minute, "gpu0", 40 * NS + 7, 20 * NS - 7, 60 * NS),
        (minute + 60, "gpu0", 20 * NS, 0, 20 * NS),
    ]


def test_a_board_that_begins_anew_counts_from_its_own_beginning(store: Store) -> None:
    minute = NOON_NS // NS
    store.writer.write_heartbeats(
        [
            beat(NOON_NS, device(100 * NS, 50 * NS)),
            beat(NOON_NS + 20 * NS, device(8 * NS, 2 * NS)),
            beat(NOON_NS + 30 * NS, device(18 * NS, 9 * NS)),
            beat(NOON_NS + 40 * NS, device(4 * NS, 1 * NS, boot="next")),
            beat(NOON_NS + 50 * NS, device(14 * NS, 1 * NS, boot="next")),
        ]
    )
    assert minutes(store) == [(minute, "gpu0", 9 * NS, 19 * NS, 28 * NS)]


def test_what_is_stored_is_told_apart_by_when_it_ended(store: Store, batch_of: MakeBatch) -> None:
    store.write(
        *(
            batch_of(n, end_epoch_ns=NOON_NS + n, gpu_ns=10, wall_ns=10 + n, requests=[{}, {}])
            for n in range(7)
        ),
        batch_of(99, boot_id="before", source="before/s", end_epoch_ns=NOON_NS + 2),
        batch_of(98, model="other", end_epoch_ns=NOON_NS + 2),
    )
    asked = Question(NOON_NS, NOON_NS + 1, NOON_NS + 3, NOON_NS + 4, NOON_NS + 5)
    found = store.reader.stored_of("boot", {"tiny": "1"}, asked)
    assert {part: t.gpu_ns for part, t in found["tiny", "1"].items()} == {
        "between": 11, "settled": 12 + 13, "early": 14, "late": 15,
    }  # fmt: skip
    assert found["tiny", "1"]["settled"] == Tally(
        executions=2, rows=4, gpu_ns=25, answered=4, processes=1
    )
    assert set(found) == {("tiny", "1")}


def test_a_batch_counts_once_and_each_outcome_for_itself(store: Store, batch_of: MakeBatch) -> None:
    executed = batch_of(
        0,
        gpu_ns=7,
        wall_ns=21,
        requests=[{"rows": 3}, {"status": "error"}, {"status": "cancelled"}],
    )
    failed = batch_of(1, gpu_ns=5, source="h/boot/2/tiny_1", requests=[{"status": "failed"}] * 2)
    statuses = ("cache_hit", "cache_hit", "rejected", "timed_out", "cancelled_in_queue")
    never = batch_of(
        0,
        source="h/boot/3/front",
        executed=False,
        gpu_ns=0,
        requests=[{"status": status} for status in statuses],
    )
    for _ in range(2):
        store.write(executed, failed, never)
    assert store.reader.stored_of("boot", {"tiny": "1"}, EVERYTHING)["tiny", "1"] == {
        "early": Tally(
            executions=2, rows=7, gpu_ns=26, answered=3, failed=2, cache_hits=2, timed_out=1,
            cancelled_in_queue=1, rejected=1, processes=2,
        )
    }  # fmt: skip


def test_lines_of_a_front_that_names_no_version_count_for_the_newest(
    store: Store, batch_of: MakeBatch
) -> None:
    hit: dict[str, Any] = {"gpu_ns": 0, "executed": False, "requests": [{"status": "cache_hit"}]}
    store.write(batch_of(0, **hit, model_version="latest"), batch_of(1, **hit), batch_of(2))
    found = store.reader.stored_of("boot", {"tiny": "12"}, EVERYTHING)
    assert {key: t.cache_hits for key, parts in found.items() for t in parts.values()} == {
        ("tiny", "12"): 1,
        ("tiny", "1"): 1,
    }


def test_lines_from_before_their_wall_time_was_stored_count_by_their_gpu_time(
    store: Store, batch_of: MakeBatch
) -> None:
    store.write(batch_of(0, gpu_ns=70, wall_ns=0, requests=[{}, {}, {}]))
    (tally,) = store.reader.stored_of("boot", {"tiny": "1"}, EVERYTHING)["tiny", "1"].values()
    assert tally.gpu_ns == 70


def test_a_later_verdict_on_the_same_heartbeat_replaces_the_earlier(store: Store) -> None:
    def verdict(time_ns: int, executions: int, boot_id: str = "boot") -> Any:
        tally = Tally(executions=executions, rows=6, gpu_ns=2**61, answered=4)
        at = Snapshot(host="h", boot_id=boot_id, time_ns=time_ns, asked_ns=time_ns + 1)
        return judge(at, COUNTERS, Bounds(tally, tally))

    store.writer.write_verdicts([verdict(NOON_NS, 1)], judged_ns=1)
    store.writer.write_verdicts([verdict(NOON_NS, 3)], judged_ns=3)
    store.writer.write_verdicts([verdict(NOON_NS, 2)], judged_ns=2)
    last = verdict(NOON_NS + NS, 2)
    store.writer.write_verdicts([last, verdict(NOON_NS, 3, "other")], judged_ns=4)
    assert store.reader.rows(
        "SELECT agrees, missing_executions, coverage_percent, requests, attributed, inferred, "
        "missing, inferred_by_outcome, missing_by_outcome FROM reconciliations "
        "WHERE boot_id = 'boot' ORDER BY time"
    ) == [
        (True, 0, Decimal(100), 8, 4, 4, 0, {"cache_hits": 1, "timed_out": 1, "failed": 2}, {}),
        (False, 1, Decimal(75), 8, 4, 2, 2, {"cache_hits": 1, "timed_out": 1}, {"failed": 2}),
    ]  # fmt: skip
    assert store.reader.last_verdicts("boot") == {("tiny", "1"): last}
    assert store.reader.last_verdicts("nobody") == {}

"""The sentinel goes on whatever Kafka does, and tells what it sees; verdicts become metrics."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from metering.capacity import (
    BatchStats,
    CapacityHeartbeat,
    Failures,
    InstanceCapacity,
    ModelCounters,
)
from metering.errors import MeteringError, SinkUnavailable
from metering.occupancy_board import Board
from metering.reconciliation import Bounds, Snapshot, Tally, Verdict, confirm, judge
from sinks.prometheus import ReconcilerMetrics, SentinelMetrics
from streams.publisher import Record, heartbeat_record, verdict_record
from streams.reconciler.pending import Pending
from streams.reconciler.telling import FORGOTTEN_AFTER_NS, Telling
from streams.sentinel.app import KEPT, Sentinel
from streams.settings import Settings
from tests.waiting import until

NS = 10**9


class Kafka:
    """Takes records while it is not ``away``."""

    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.taken: list[Record] = []

    async def publish(self, records: list[Record]) -> None:
        if self.away:
            raise SinkUnavailable("Kafka", len(records), "away")
        self.taken += records


class Silent:
    async def ask(self) -> tuple[ModelCounters, ...]:
        raise MeteringError("Triton does not answer")


def sentinel(
    tmp_path: Path, kafka: Kafka, registry: CollectorRegistry, interval_s: float = 0.01
) -> Sentinel:
    settings = Settings(log_dir=tmp_path, capacity_interval_s=interval_s)
    return Sentinel(settings, kafka, Silent(), SentinelMetrics(registry))  # type: ignore[arg-type]  # a fake


async def test_heartbeats_wait_for_kafka_and_go_out_in_order(tmp_path: Path) -> None:
    kafka, registry = Kafka(away=True), CollectorRegistry()
    task = asyncio.create_task(sentinel(tmp_path, kafka, registry).run())
    try:
        failed = "meter_capacity_heartbeats_failed_total"
        await until(lambda: (registry.get_sample_value(failed) or 0) > 1)
        kafka.away = False
        await until(lambda: len(kafka.taken) > 5)
    finally:
        task.cancel()
    sequences = [json.loads(r.value)["sequence"] for r in kafka.taken]
    assert sequences == sorted(set(sequences))
    assert registry.get_sample_value("meter_capacity_heartbeats_without_counters_total") >= 6  # type: ignore[operator]  # it is there


async def test_what_waits_for_too_long_is_given_up_the_oldest_first(tmp_path: Path) -> None:
    kafka, registry = Kafka(away=True), CollectorRegistry()
    watching = sentinel(tmp_path, kafka, registry)
    beats = [await watching.beat_once() for _ in range(KEPT + 3)]
    assert registry.get_sample_value("meter_capacity_heartbeats_dropped_total") == 3
    kafka.away = False
    task = asyncio.create_task(watching.run())
    await until(lambda: len(kafka.taken) >= KEPT)
    task.cancel()
    assert json.loads(kafka.taken[0].value)["sequence"] == beats[3].sequence


async def test_a_device_is_told_of_while_it_is_there(tmp_path: Path) -> None:
    kafka, registry = Kafka(), CollectorRegistry()
    watching = sentinel(tmp_path, kafka, registry)
    board = Board.open(tmp_path, "cpu:0", "a chip", "h/b/1/tiny_0", "tiny")
    board.begin()
    board.end()
    beat = await watching.beat_once()
    labels = {"model": "tiny", "model_instance": "tiny_0", "device": "cpu:0"}
    assert registry.get_sample_value("meter_instance_executions", labels) == 1
    (device,) = beat.devices
    assert device.busy_ns + device.idle_ns == device.wall_ns
    board.close()
    await watching.beat_once()
    assert registry.get_sample_value("meter_instance_executions", labels) is None


async def test_an_instance_is_not_idle_while_a_batch_runs(tmp_path: Path) -> None:
    watching = sentinel(tmp_path, Kafka(), CollectorRegistry())
    board = Board.open(tmp_path, "cpu:0", "a chip", "h/b/1/tiny_0", "tiny")
    idle = [(await watching.beat_once()).instances[0].idle_ns]
    board.begin()
    for _ in range(3):
        (instance,) = (await watching.beat_once()).instances
        assert instance.batch_ns + instance.idle_ns == instance.wall_ns
        idle.append(instance.idle_ns)
    assert idle[1] == idle[2] == idle[3] >= idle[0]
    board.end()
    board.close()


async def test_a_heartbeat_names_the_board_and_when_it_was_read(tmp_path: Path) -> None:
    """Two log folders with one device name have two boards; one that is made anew is another."""
    folders, names = (tmp_path / "one", tmp_path / "two"), []
    for folder in (*folders, folders[0]):
        for path in folder.glob(".devices/*"):
            path.unlink()
        board = Board.open(folder, "cpu:0", "a chip", "h/b/1/tiny_0", "tiny")
        watching = sentinel(folder, Kafka(), CollectorRegistry())
        before_ns = time.time_ns()
        first, second = [(await watching.beat_once()).devices[0] for _ in range(2)]
        assert first.board == second.board
        assert first.read_ns is not None
        assert second.read_ns is not None
        assert first.read_ns - before_ns > -NS
        assert abs(second.read_ns - first.read_ns - second.wall_ns + first.wall_ns) < NS
        names.append(first.board)
        board.close()
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    "changes",
    [{"asked_ns": 4}, {"boot_id": None}, {"triton_answers": False}],
    ids=["asked before", "of no server", "of no answer"],
)
def test_a_heartbeat_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    given = beat_at(5).model_dump() | {"models": (counters(),)}
    assert CapacityHeartbeat.model_validate(given).models == (counters(),)
    with pytest.raises(ValueError, match=r"asked_ns=|models though"):
        CapacityHeartbeat.model_validate(given | changes)


def beat_at(asked_ns: int, host: str = "h") -> CapacityHeartbeat:
    instance = InstanceCapacity(
        source="h/b/1/m_0", model="m", device="d", wall_ns=1, busy_ns=0, batch_ns=0, idle_ns=1,
        executions=0,
    )  # fmt: skip
    return CapacityHeartbeat(
        source=f"{host}/b/sentinel", sequence=asked_ns, host=host, boot_id="b", time_ns=asked_ns,
        asked_ns=asked_ns, triton_answers=True, instances=(instance,),
    )  # fmt: skip


def test_of_the_ripe_heartbeats_the_newest_of_each_host_is_judged() -> None:
    pending = Pending(grace_ns=10)
    for offset, (asked_ns, host) in enumerate([(1, "a"), (2, "b"), (3, "a"), (8, "a")]):
        pending.add(offset, beat_at(asked_ns, host), asked_ns)
    pending.add(4, None, 8)
    assert pending.ripe(10) == []
    assert pending.done(10) == 0
    assert [(b.host, b.asked_ns) for b in pending.ripe(13)] == [("b", 2), ("a", 3)]
    assert pending.done(13) == 3, "what is not ripe is read again after a restart"
    assert [b.asked_ns for b in pending.ripe(18)] == [8]
    assert pending.done(18) == 5
    assert pending.ripe(10**6) == []


def test_a_heartbeat_from_a_host_that_is_ahead_waits_no_longer_than_others() -> None:
    pending = Pending(grace_ns=10)
    pending.add(0, beat_at(10**15), 5)
    pending.add(1, beat_at(5, "b"), 5)
    assert [b.host for b in pending.ripe(15)] == ["h", "b"]
    assert pending.done(15) == 2


def counters() -> ModelCounters:
    return ModelCounters(
        model="m", version="1", successes=10, failures=Failures(), cache_hits=0, cache_misses=0,
        queue_ns=0, batch_stats=(BatchStats(size=1, executions=10, compute_infer_ns=10),),
    )  # fmt: skip


def verdict(time_ns: int, executions: int = 10, host: str = "h", boot_id: str = "b") -> Verdict:
    stored = Tally(executions=executions, rows=executions, gpu_ns=10, answered=executions)
    at = Snapshot(host=host, boot_id=boot_id, time_ns=time_ns, asked_ns=time_ns)
    return judge(at, counters(), Bounds(stored, stored))


def test_a_discrepancy_counts_once_until_it_heals() -> None:
    registry = CollectorRegistry()
    telling = Telling(ReconcilerMetrics(registry))

    def count() -> float | None:
        labels = {"model": "m", "quantity": "executions"}
        return registry.get_sample_value("meter_reconciliation_discrepancies_total", labels)

    last: Verdict | None = None
    counts = []
    for n, executions in enumerate([9, 9, 9, 10, 9, 9]):
        last = confirm(verdict(n + 1, executions), last)
        telling.tell("h", [last])
        counts.append(count())
    assert counts == [None, 1, 1, 1, 1, 2]
    missing = "meter_reconciliation_missing_executions"
    assert registry.get_sample_value(missing, {"model": "m"}) == 1


def test_totals_are_over_all_hosts_and_the_server_that_took_over() -> None:
    registry = CollectorRegistry()
    telling = Telling(ReconcilerMetrics(registry))

    def coverage() -> float | None:
        return registry.get_sample_value("meter_reconciliation_coverage_ratio", {"model": "m"})

    telling.tell("a", [verdict(1, 5, host="a")])
    telling.tell("b", [verdict(2, 10, host="b")])
    assert coverage() == 0.75
    telling.tell("a", [verdict(3, 10, host="a", boot_id="next")])
    assert coverage() == 1
    telling.tell("a", [verdict(4, 0, host="a", boot_id="next")])
    assert coverage() == 0.5
    telling.tell("b", [verdict(5 + FORGOTTEN_AFTER_NS, host="b")])
    assert coverage() == 1


def test_the_events_carry_their_identity() -> None:
    beat, judged = beat_at(7), verdict(8)
    headers = dict(heartbeat_record(beat).headers)
    assert (headers["ce_source"], headers["ce_id"]) == (b"h/b/sentinel", b"7")
    assert heartbeat_record(beat).key == b"h"
    assert CapacityHeartbeat.model_validate_json(heartbeat_record(beat).value) == beat
    headers = dict(verdict_record(judged).headers)
    assert headers["ce_type"] == b"inference-meter.usage.reconciliation.v1"
    assert headers["ce_id"] == b"b/m/1@8"
    assert json.loads(verdict_record(judged).value)["coverage_percent"] == "100.00"


def test_no_two_verdicts_have_one_key() -> None:
    """The parts of a key may hold what joins them."""
    names = ("a", "a/b", "a%2Fb", "b", "%", "/")
    keys = {
        verdict_record(
            verdict(8).model_copy(update={"boot_id": boot, "model": model, "version": version})
        ).key
        for boot, model, version in itertools.product(names, repeat=3)
    }
    assert len(keys) == len(names) ** 3


def test_a_model_that_is_not_metered_any_more_is_in_no_total() -> None:
    """Though the last verdict on it said that something was missing, and no model is left."""
    registry = CollectorRegistry()
    telling = Telling(ReconcilerMetrics(registry))
    missing = "meter_reconciliation_missing_executions"
    for leave in (lambda: telling.clear("h"), lambda: telling.expire(1 + 2 * FORGOTTEN_AFTER_NS)):
        telling.tell("h", [verdict(1, 4)])
        assert registry.get_sample_value(missing, {"model": "m"}) == 6
        leave()
        assert registry.get_sample_value(missing, {"model": "m"}) is None

"""The detector's process, with a topic, a store and receivers that are fakes in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError
from prometheus_client import CollectorRegistry

from metering.costs import Anomaly, CauseTag, WindowRow
from metering.errors import SinkUnavailable
from sinks.prometheus import DetectorMetrics
from streams.detection import app, intervals
from streams.detection.app import Detection, Outlets
from streams.detection.intervals import Intervals
from streams.publisher import Record
from streams.settings import Settings
from streams.topics import COST_ANOMALIES

START_MS = 1_780_000_000_000
NOW_MS = START_MS + 3_600_000
YEAR_MS = 365 * 86_400_000


def value(window: int, tenant: str = "acme", **changes: Any) -> bytes:
    row = WindowRow(
        window_start_ms=START_MS + window * 10_000,
        window_seconds=10,
        tenant=tenant,
        model="tiny",
        final=True,
        counted_to=window,
        requests=1,
        retries=0,
        unpriced_requests=0,
        batch_size_sum=1,
        input_tokens=1,
        cached_input_tokens=0,
        output_tokens=1,
        gpu_ns=2,
        input_gpu_ns=1,
        output_gpu_ns=1,
        cost_usd=Decimal(2),
        input_cost_usd=Decimal(1),
        output_cost_usd=Decimal(1),
    )
    return row.model_copy(update=changes).model_dump_json().encode()


def anomaly_of(row: WindowRow) -> Anomaly:
    return Anomaly(
        anomaly_id=f"{row.window_start_ms}-{row.tenant}",
        window_start_ms=row.window_start_ms,
        window_seconds=10,
        tenant=row.tenant,
        model=row.model,
        score=9.0,
        score_unit="standard deviations",
        threshold=5.0,
        expected_usd=Decimal(1),
        observed_usd=Decimal(2),
        usd_per_hour=Decimal(360),
        causes=(
            CauseTag(
                driver="volume",
                slice={"tenant": row.tenant},
                share=1.0,
                usd_per_hour=Decimal(360),
                confidence=1.0,
                lever="volume ▸ more requests",
            ),
        ),
    )


class Suspicious:
    """A detector to which every cohort of every window is an anomaly."""

    def __init__(self) -> None:
        self.observed: list[int] = []

    def observe(self, rows: Sequence[WindowRow]) -> list[Anomaly]:
        self.observed.append((rows[0].window_start_ms - START_MS) // 10_000)
        return [anomaly_of(row) for row in rows]


class World:
    """The topic and its committed offset, which outlive a process; and what was told to whom."""

    def __init__(self, *values: bytes | None) -> None:
        self.topic = list(values)
        self.stamps: dict[int, int] = {}
        self.of_record: dict[int, tuple[tuple[tuple[str, bytes], ...], bytes]] = {}
        self.committed: int | None = None
        self.beginning = 0
        self.commit_fails = 0
        self.start_fails = 0
        self.connected = 0
        self.journal: list[str] = []
        self.store_refuses = 0
        self.publish_refuses = 0
        self.stored: list[Anomaly] = []
        self.published: list[Record] = []

    # The writer and the publisher.

    def write_anomalies(self, anomalies: Sequence[Anomaly]) -> None:
        self.journal.append("store")
        if self.store_refuses:
            self.store_refuses -= 1
            raise SinkUnavailable("ClickHouse", len(anomalies), "away")
        self.stored += anomalies

    async def publish(self, records: Sequence[Record]) -> None:
        self.journal.append("publish")
        if self.publish_refuses:
            self.publish_refuses -= 1
            raise SinkUnavailable("Kafka", len(records), "away")
        self.published += records


class Consumer:
    """As much of aiokafka's consumer as is used, over the world's topic."""

    world: World

    def __init__(self, **_: Any) -> None:
        self._next = 0

    async def start(self) -> None:
        self.world.connected += 1
        if self.world.start_fails:
            self.world.start_fails -= 1
            raise KafkaConnectionError("away")

    async def stop(self) -> None:
        self.world.connected -= 1

    def assign(self, partitions: object) -> None: ...

    async def end_offsets(self, partitions: list[Any]) -> dict[Any, int]:
        return dict.fromkeys(partitions, len(self.world.topic))

    async def beginning_offsets(self, partitions: list[Any]) -> dict[Any, int]:
        return dict.fromkeys(partitions, self.world.beginning)

    def seek(self, _: object, offset: int) -> None:
        self._next = offset

    async def getmany(self, partition: Any, timeout_ms: int) -> dict[Any, list[Any]]:
        await asyncio.sleep(0.001)
        if self._next >= len(self.world.topic):
            return {}
        headers, key = self.world.of_record.get(self._next, ((), None))
        found = SimpleNamespace(
            offset=self._next,
            value=self.world.topic[self._next],
            timestamp=self.world.stamps.get(self._next, 0),
            timestamp_type=0,
            headers=headers,
            key=key,
        )
        self._next += 1
        return {partition: [found]}

    async def commit(self, offsets: dict[Any, int]) -> None:
        self.world.journal.append("commit")
        if self.world.commit_fails:
            self.world.commit_fails -= 1
            raise KafkaError("away")
        (self.world.committed,) = offsets.values()


class Place:
    """What the group has committed, in a topic that nobody replaces."""

    def __init__(self, *_: object) -> None: ...

    async def find(self, _end: int) -> int | None:
        return Consumer.world.committed

    def at(self, offset: int) -> dict[str, int]:
        return {"the partition": offset}

    async def check(self) -> None: ...


class Process:
    """One life of the detector over a world."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(app, "AIOKafkaConsumer", Consumer)
        monkeypatch.setattr(app, "GroupPlace", Place)
        monkeypatch.setattr(app, "RETRY_FIRST_S", 0.001)
        clock = SimpleNamespace(time_ns=lambda: NOW_MS * 10**6, monotonic=time.monotonic)
        monkeypatch.setattr(app, "time", clock)
        monkeypatch.setattr(app, "Intervals", partial(Intervals, settle_s=0.05))
        Consumer.world = world
        self.registry = CollectorRegistry()
        self.detector = Suspicious()
        outlets = Outlets(world, world, DetectorMetrics(self.registry))  # type: ignore[arg-type]  # fakes
        self.detection = Detection(Settings(), self.detector, outlets)  # type: ignore[arg-type]  # a fake

    async def live(self, windows: int) -> None:
        """Until so many windows were judged and what follows from them is done."""
        task = asyncio.create_task(self.detection.run())
        try:
            async with asyncio.timeout(20):
                while self.metric("meter_detector_windows_total") < windows:
                    assert not task.done(), task
                    await asyncio.sleep(0.005)
                await asyncio.sleep(0.1)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


async def test_an_anomaly_is_stored_and_published_before_its_offset_is_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(value(0), value(0, "b"), value(1))
    process = Process(world, monkeypatch)
    await process.live(windows=2)
    assert world.journal == [*("store", "publish", "commit"), *("store", "publish", "commit")]
    assert world.committed == 3
    assert [r.key for r in world.published] == [b"acme", b"b", b"acme"]
    assert {r.topic for r in world.published} == {COST_ANOMALIES}
    assert process.metric("meter_anomalies_total", driver="volume") == 3


async def test_a_restart_sees_all_windows_again_and_speaks_only_of_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(value(0), value(1))
    await Process(world, monkeypatch).live(windows=2)
    told = len(world.stored)
    world.topic += [value(2)]
    process = Process(world, monkeypatch)
    await process.live(windows=3)
    assert process.detector.observed == [0, 1, 2]
    assert [a.window_start_ms for a in world.stored[told:]] == [START_MS + 20_000]
    assert len(world.stored) == len(world.published) == 3
    assert world.committed == 3


async def test_a_death_before_the_commit_repeats_the_anomaly_under_its_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(value(0))
    world.commit_fails = 1
    await Process(world, monkeypatch).live(windows=1)
    assert world.committed is None
    await Process(world, monkeypatch).live(windows=1)
    assert world.committed == 1
    assert len(world.stored) == 2
    assert len({a.anomaly_id for a in world.stored}) == 1


async def test_a_store_that_refuses_is_asked_again_and_nothing_is_published_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(value(0))
    world.store_refuses, world.publish_refuses = 2, 1
    await Process(world, monkeypatch).live(windows=1)
    assert world.journal == [
        *("store", "store"),
        *("store", "publish"),
        *("store", "publish", "commit"),
    ]
    assert len({a.anomaly_id for a in world.stored}) == 1


async def test_a_row_that_can_not_be_read_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(value(0), b"{", None, b"{}", value(1))
    process = Process(world, monkeypatch)
    await process.live(windows=2)
    assert process.detector.observed == [0, 1]
    assert world.committed == 5


HOSTILE_ROWS: dict[str, tuple[bytes | None, str]] = {
    "a year ahead": (value(YEAR_MS // 10_000), "from-the-future"),
    "beyond every clock": (value(0, window_start_ms=10**30), "from-the-future"),
    "not aligned": (value(0, window_start_ms=START_MS + 3), "invalid"),
    "before 1970": (value(0, window_start_ms=-10_000), "invalid"),
    "no length": (value(0, window_seconds=0), "invalid"),
    "a count beyond 64 bits": (value(0, gpu_ns=2**64), "invalid"),
    "a negative count": (value(0, requests=-1), "invalid"),
    "a cost beyond all money": (
        value(0).replace(b'"cost_usd":"2"', b'"cost_usd":"1E400"'), "invalid",
    ),
    "a negative cost": (value(0, input_cost_usd=Decimal(-1)), "invalid"),
    "a cost that is no number": (
        value(0).replace(b'"cost_usd":"2"', b'"cost_usd":"NaN"'), "invalid",
    ),
    "an endless cost": (
        value(0).replace(b'"cost_usd":"2"', b'"cost_usd":"Infinity"'), "invalid",
    ),
    "nothing": (None, "malformed"),
    "null": (b"null", "invalid"),
    "nested": (b"[" * 100_000, "malformed"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_ROWS)
async def test_a_hostile_row_is_counted_and_stops_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile, reason = HOSTILE_ROWS[name]
    world = World(hostile, value(0), hostile, value(1), hostile, value(2))
    process = Process(world, monkeypatch)
    await process.live(windows=3)
    assert process.detector.observed == [0, 1, 2]
    assert world.committed == 6
    assert process.metric("meter_detector_refused_rows_total", reason=reason) == 3


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ([("ce_id", None)], 0),
        ([("ce_id", b"\xff\x00")], 0),
        ([("ce_id", b""), ("ce_id", None), ("", None)], 0),
        ([("ce_type", None)], 2),
        ([("ce_type", b"inference-meter.usage.batch.v1")], 2),
        ([("ce_specversion", b"")], 2),
    ],
)
async def test_headers_that_are_null_or_garbled_stop_nothing(
    headers: list[tuple[str, bytes | None]], refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(value(0), value(1), value(2), value(3))
    world.of_record = {n: (tuple(headers), b"10/garbled") for n in (0, 2)}  # type: ignore[misc]  # Kafka has null values
    process = Process(world, monkeypatch)
    await process.live(windows=2 if refused else 4)
    assert process.detector.observed == ([1, 3] if refused else [0, 1, 2, 3])
    reason = "meter_detector_refused_rows_total"
    assert process.metric(reason, reason="wrong-type") == refused


async def test_a_stamp_of_a_sender_that_is_ahead_does_not_end_windows_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows of one window, with a record between them that claims to be from next year."""
    world = World(value(0, "a"), b"{", value(0, "b"), value(1))
    world.stamps = {0: NOW_MS, 1: NOW_MS + YEAR_MS, 2: NOW_MS, 3: NOW_MS}
    monkeypatch.setattr(intervals, "MOST_EXTRA_WAIT_S", 0.2)
    process = Process(world, monkeypatch)
    await process.live(windows=2)
    assert [r.key for r in world.published] == [b"a", b"b", b"acme"]


async def test_a_window_that_breaks_its_model_does_not_stop_those_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(value(0), value(1), value(2))
    process = Process(world, monkeypatch)
    observe = process.detector.observe

    def broken(rows: Sequence[WindowRow]) -> list[Anomaly]:
        if rows[0].window_start_ms == START_MS + 10_000:
            raise ZeroDivisionError
        return observe(rows)

    process.detector.observe = broken  # type: ignore[method-assign]
    await process.live(windows=3)
    assert process.detector.observed == [0, 2]
    assert world.committed == 3
    assert process.metric("meter_detector_failed_windows_total") == 1


async def test_rows_that_are_not_to_be_judged_are_passed_over_unread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A value that can't be read would be told in the log."""
    told: list[str] = []
    monkeypatch.setattr(app.log, "error", lambda text, *_: told.append(text))
    world = World(b"{", value(0), b"{", value(1), b"{")
    world.of_record = {
        0: ((("ce_id", b"60/0/acme/tiny/@3"),), b"60/0/acme/tiny/"),
        2: ((("ce_id", b"10/0/acme/tiny/@3~"),), b"10/0/acme/tiny/"),
        3: ((("ce_id", b"10/0/acme/tiny/@3"),), b"10/0/acme/tiny/"),
        4: ((("ce_id", b"100/0/acme/tiny/@3"),), b"100/0/acme/tiny/"),
    }
    process = Process(world, monkeypatch)
    await process.live(windows=2)
    assert process.detector.observed == [0, 1]
    assert told == []


async def test_two_writers_that_are_apart_lose_and_repeat_nothing_at_a_death_between_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second window's first row lies before the first window's last one."""
    world = World(value(0, "a"), value(1, "a"), value(0, "b"), value(1, "b"))
    world.beginning = 0
    world.stamps = dict.fromkeys(range(4), START_MS + 23_000)
    first = Process(world, monkeypatch)
    await first.live(windows=2)
    assert first.detector.observed == [0, 1]
    assert len(world.stored) == 4
    assert world.committed == 4
    world.committed, world.stored = 1, []  # it died before the second window was judged
    await Process(world, monkeypatch).live(windows=2)
    told = {(a.window_start_ms - START_MS, a.tenant) for a in world.stored}
    assert told >= {(10_000, "a"), (10_000, "b")}, "the second window is told"
    await Process(world, monkeypatch).live(windows=2)
    assert len(world.stored) == 4, "and no third time"


async def test_a_start_reads_no_further_back_than_its_models_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "WARM_UP_ROWS", 2)
    world = World(*(value(n) for n in range(6)))
    world.committed = 5
    process = Process(world, monkeypatch)
    await process.live(windows=3)
    assert process.detector.observed == [3, 4, 5]
    assert [a.window_start_ms for a in world.stored] == [START_MS + 50_000]


async def test_what_the_topic_has_forgotten_is_not_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(*(value(n) for n in range(4)))
    world.beginning = 2
    process = Process(world, monkeypatch)
    await process.live(windows=2)
    assert process.detector.observed == [2, 3]


async def test_a_start_without_kafka_waits_for_it_and_leaves_no_connection_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(value(0), value(1))
    world.start_fails = 3
    process = Process(world, monkeypatch)
    await process.live(windows=2)
    assert process.detector.observed == [0, 1]
    assert (world.start_fails, world.connected) == (0, 0)
    assert len(world.stored) == 2

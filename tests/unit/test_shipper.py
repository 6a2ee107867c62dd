"""The shipper with a Kafka that refuses: what is acknowledged is committed, nothing else."""

from __future__ import annotations

import asyncio
import fcntl
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from metering.cloudevents import USAGE_BATCH_TYPE
from metering.errors import MeteringError, SinkUnavailable
from metering.wal import HEADER_BYTES, encode_frame, segment_name
from sinks.prometheus import ShipperMetrics
from streams.publisher import Record
from streams.shipper import ship
from streams.shipper.reader import CHECKPOINT
from streams.shipper.ship import Shipper
from streams.topics import USAGE_BATCHES
from triton_models.emitter.log import UsageLog

SOURCE = "host/boot/1/tiny_0"
NOW_S = 1_780_000_000.0


class Kafka:
    """In the publisher's place: refuses ``failures`` times; looks at the disk as it is called."""

    def __init__(self, log_dir: Path, failures: int = 0) -> None:
        self._log_dir = log_dir
        self.failures = failures
        self.calls: list[list[Record]] = []
        self.checkpoints_during_call: list[int] = []
        self.taken: list[Record] = []
        self.refused_twice = asyncio.Event()

    async def publish(self, records: Sequence[Record]) -> None:
        self.calls.append(list(records))
        self.checkpoints_during_call += [
            json.loads(path.read_text())["offset"] for path in self._log_dir.rglob(CHECKPOINT)
        ]
        await asyncio.sleep(0)
        if len(self.calls) <= self.failures:
            if len(self.calls) == 2:
                self.refused_twice.set()
            raise SinkUnavailable("Kafka at test", len(records), "away")
        self.taken += records


class Bench:
    def __init__(self, log_dir: Path, failures: int = 0) -> None:
        self.log_dir = log_dir
        self.registry = CollectorRegistry()
        self.kafka = Kafka(log_dir, failures)
        self.shipper = Shipper(log_dir, self.kafka, ShipperMetrics(self.registry))  # type: ignore[arg-type]  # a fake

    def log(self, source: str = SOURCE) -> UsageLog:
        return UsageLog(self.log_dir / source)

    def metric(self, name: str) -> float:
        value = self.registry.get_sample_value(name)
        assert value is not None, name
        return value

    async def run_until(self, taken: int) -> None:
        task = asyncio.create_task(self.shipper.run())
        try:
            async with asyncio.timeout(20):
                while len(self.kafka.taken) < taken or self.metric("meter_shipper_lag_bytes"):
                    assert not task.done(), task.exception()
                    await asyncio.sleep(0.01)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RETRY_FIRST_S", "IDLE_S", "UPKEEP_S"):
        monkeypatch.setattr(ship, name, 0.01)


def checkpoint(log_dir: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((log_dir / SOURCE / CHECKPOINT).read_text())
    return found


def write(log: UsageLog, *payloads: bytes) -> None:
    for payload in payloads:
        log.append(log.reserve(), payload)


async def test_frames_arrive_in_order_with_the_source_as_key_and_their_identity_in_headers(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    write(bench.log(), b"one", b"two")
    await bench.run_until(taken=2)
    assert [(r.topic, r.key, r.value) for r in bench.kafka.taken] == [
        (USAGE_BATCHES, SOURCE.encode(), b"one"),
        (USAGE_BATCHES, SOURCE.encode(), b"two"),
    ]
    identities = [
        (dict(r.headers)["ce_source"], dict(r.headers)["ce_id"]) for r in bench.kafka.taken
    ]
    assert identities == [(SOURCE.encode(), b"0"), (SOURCE.encode(), b"1")]
    assert {dict(r.headers)["ce_type"] for r in bench.kafka.taken} == {USAGE_BATCH_TYPE.encode()}


async def test_nothing_is_committed_before_kafka_has_acknowledged(tmp_path: Path) -> None:
    bench = Bench(tmp_path, failures=3)
    write(bench.log(), b"one", b"two")
    await bench.run_until(taken=2)
    calls = [[r.value for r in call] for call in bench.kafka.calls[:4]]
    assert calls == [[b"one", b"two"]] * 4  # the same again, whole, until it was taken
    assert bench.kafka.checkpoints_during_call[:4] == [0, 0, 0, 0]
    assert checkpoint(tmp_path)["offset"] == 2 * (HEADER_BYTES + 3)
    assert bench.metric("meter_shipper_failures_total") == 3
    assert bench.metric("meter_shipped_batches_total") == 2


async def test_a_shipper_that_ends_before_the_acknowledgement_leaves_all_for_the_next_one(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, failures=10**6)
    write(bench.log(), b"one")
    task = asyncio.create_task(bench.shipper.run())
    await asyncio.wait_for(bench.kafka.refused_twice.wait(), 20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert checkpoint(tmp_path)["offset"] == 0
    after = Bench(tmp_path)
    await after.run_until(taken=1)
    assert [r.value for r in after.kafka.taken] == [b"one"]


async def test_waiting_between_tries_grows_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(ship, "RETRY_MOST_S", 0.004)
    waited: list[float] = []
    sleep = asyncio.sleep

    async def note(delay_s: float) -> None:
        waited.append(delay_s)
        await sleep(0)

    monkeypatch.setattr("streams.shipper.ship.asyncio.sleep", note)
    bench = Bench(tmp_path, failures=5)
    write(bench.log(), b"one")
    bench.shipper.upkeep.discover()
    assert await bench.shipper.ship_once()
    assert [s for s in waited if s] == [0.001, 0.002, 0.004, 0.004, 0.004]


async def test_a_source_that_appears_later_is_shipped_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    write(bench.log("a/1"), b"one")
    await bench.run_until(taken=1)
    write(bench.log("b/2"), b"two")
    await bench.run_until(taken=2)
    assert [(r.key, r.value) for r in bench.kafka.taken] == [(b"a/1", b"one"), (b"b/2", b"two")]


async def test_lag_corruption_and_gaps_show_in_the_metrics(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    folder = tmp_path / SOURCE
    folder.mkdir(parents=True)
    bad = bytearray(encode_frame(1, b"two"))
    bad[HEADER_BYTES] ^= 1
    frames = encode_frame(0, b"one") + bytes(bad) + encode_frame(4, b"five")
    (folder / segment_name(0)).write_bytes(frames)
    bench.kafka.failures = 1
    await bench.shipper.upkeep.once(NOW_S)
    await bench.shipper.ship_once()
    await bench.shipper.upkeep.once(NOW_S)
    assert bench.metric("meter_shipper_lag_bytes") == len(encode_frame(4, b"five"))
    while await bench.shipper.ship_once():
        pass
    await bench.shipper.upkeep.once(NOW_S)
    assert bench.metric("meter_shipper_lag_bytes") == 0
    assert bench.metric("meter_usage_log_corrupt_frames_total") == 1
    assert bench.metric("meter_usage_log_missing_batches_total") == 3
    assert bench.metric("meter_shipped_batches_total") == 2


async def test_a_second_shipper_is_refused_and_told_why(tmp_path: Path) -> None:
    first, second = Bench(tmp_path), Bench(tmp_path)
    first.shipper.lock()
    with pytest.raises(MeteringError, match="another shipper is at work") as error:
        second.shipper.lock()
    assert str(tmp_path) in str(error.value)


async def test_the_lock_of_a_shipper_that_is_gone_is_free(tmp_path: Path) -> None:
    Bench(tmp_path / "log").shipper.lock()  # makes the folder; the file is closed with the object
    with (tmp_path / "log" / "shipper.lock").open("w") as gone:
        fcntl.flock(gone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    Bench(tmp_path / "log").shipper.lock()

"""What the shipper does beside shipping: the cap, counts of losses, lag, folders of the dead."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from metering.errors import SinkUnavailable
from metering.wal import HEADER_BYTES, encode_frame, segment_name
from metering.wal_cap import CHECKPOINT, WRITER_LOCK, drop_lock, is_tended, size_bytes, survey
from sinks.prometheus import ShipperMetrics
from streams.publisher import Record
from streams.shipper import ship
from streams.shipper.losses import LOSSES
from streams.shipper.ship import Shipper
from streams.shipper.upkeep import RETIRE_EVERY
from triton_models.emitter.log import UsageLog

NOW_S = 1_780_000_000.0


class Kafka:
    """In the publisher's place: takes all, or waits for ever (frozen), or refuses ``failures``."""

    def __init__(self) -> None:
        self.taken: list[Record] = []
        self.frozen = False
        self.failures = 0

    async def publish(self, records: Sequence[Record]) -> None:
        if self.frozen:
            await asyncio.Event().wait()
        if self.failures:
            self.failures -= 1
            raise SinkUnavailable("Kafka at test", len(records), "away")
        self.taken += records


class Host:
    """A log folder with its shipper, which can be started anew."""

    def __init__(self, log_dir: Path, max_bytes: int = 10**9) -> None:
        self.log_dir = log_dir
        self.max_bytes = max_bytes
        self.kafka = Kafka()
        self.start()

    def start(self) -> None:
        self.registry = CollectorRegistry()
        metrics = ShipperMetrics(self.registry)
        self.shipper = Shipper(self.log_dir, self.kafka, metrics, self.max_bytes)

    def log(self, source: str, segment_bytes: int = 10**6) -> UsageLog:
        return UsageLog(self.log_dir / source, segment_bytes=segment_bytes, log_dir=self.log_dir)

    def metric(self, name: str) -> float:
        value = self.registry.get_sample_value(name)
        assert value is not None, name
        return value

    def losses(self) -> tuple[float, ...]:
        names = ("dropped_batches", "dropped_requests", "unwritten_batches", "unwritten_requests")
        return tuple(self.metric(f"meter_usage_log_{name}_total") for name in names)

    async def keep(self, rounds: int = 1, now_s: float = NOW_S) -> None:
        for _ in range(rounds):
            await self.shipper.upkeep.once(now_s)

    async def ship(self) -> None:
        while await self.shipper.ship_once():
            pass


def write(log: UsageLog, *requests: int, end_s: float = NOW_S) -> None:
    for count in requests:
        event = {"end_epoch_ns": int(end_s * 1e9), "requests": [{}] * count}
        log.append(log.reserve(), json.dumps(event).encode())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


async def test_at_the_cap_the_oldest_is_dropped_and_counted_while_kafka_is_frozen(
    tmp_path: Path,
) -> None:
    host = Host(tmp_path, max_bytes=1000)
    write(host.log("a/1", segment_bytes=150), *[3] * 30)
    host.kafka.frozen = True
    await host.keep()
    assert size_bytes(survey(tmp_path).values()) <= 1000
    assert host.metric("meter_usage_log_bytes") <= host.metric("meter_usage_log_max_bytes") == 1000
    batches, requests, *_ = host.losses()
    assert requests == 3 * batches > 0
    host.kafka.frozen = False
    await host.ship()
    assert len(host.kafka.taken) + batches == 30
    assert host.metric("meter_usage_log_missing_batches_total") == batches


async def test_what_is_on_its_way_is_not_dropped(tmp_path: Path) -> None:
    host = Host(tmp_path, max_bytes=600)
    write(host.log("a/1", segment_bytes=150), *[1] * 3)
    await host.keep()
    host.kafka.frozen = True
    sending = asyncio.create_task(host.shipper.ship_once())
    await asyncio.sleep(0)
    write(host.log("b/1", segment_bytes=150), *[1] * 20)
    await host.keep()
    assert host.losses()[0] > 0
    assert (tmp_path / "a/1" / segment_name(0)).exists()
    sending.cancel()
    host.kafka.frozen = False
    host.start()
    await host.keep()
    await host.ship()
    assert len(host.kafka.taken) + host.losses()[0] == 23


async def test_counts_of_losses_begin_where_the_last_shipper_ended(tmp_path: Path) -> None:
    host = Host(tmp_path, max_bytes=500)
    log = host.log("a/1", segment_bytes=150)
    write(log, *[2] * 20)
    log.lose(5)
    await host.keep(3)
    before = host.losses()
    assert before[0] > 0
    assert before[2:] == (1, 5)
    host.start()
    await host.keep(3)
    assert host.losses() == before
    log.lose(7)
    await host.keep()
    assert host.losses()[2:] == (2, 12)


async def test_counts_are_kept_when_the_folder_of_their_source_is_gone(tmp_path: Path) -> None:
    host = Host(tmp_path, max_bytes=500)
    log = host.log("a/1", segment_bytes=150)
    write(log, *[2] * 20)
    log.lose(5)
    log.close()
    await host.keep()
    await host.ship()
    await host.keep(RETIRE_EVERY)
    assert not (tmp_path / "a").exists()
    before = host.losses()
    host.start()
    await host.keep()
    assert host.losses() == before
    assert before[0] + len(host.kafka.taken) == 20


async def test_a_count_of_losses_that_can_not_be_read_is_put_aside(host: Host) -> None:
    (host.log_dir / LOSSES).write_text("[]")
    log = host.log("a/1")
    write(log, 1)
    log.lose(2)
    await host.keep()
    assert host.losses()[2:] == (1, 2)
    assert (host.log_dir / "losses.broken").read_text() == "[]"


async def test_lag_in_seconds_is_the_age_of_the_oldest_batch_that_waits(host: Host) -> None:
    write(host.log("a/1"), 1, end_s=NOW_S - 30)
    write(host.log("b/1"), 1, end_s=NOW_S - 90)
    await host.keep()
    assert host.metric("meter_shipper_lag_seconds") == pytest.approx(90)
    await host.keep(now_s=NOW_S + 5)
    assert host.metric("meter_shipper_lag_seconds") == pytest.approx(95)
    await host.ship()
    await host.keep()
    assert host.metric("meter_shipper_lag_seconds") == 0
    assert host.metric("meter_shipper_lag_bytes") == 0


async def test_a_record_that_was_torn_has_no_age(host: Host) -> None:
    log = host.log("a/1")
    write(log, 1)
    await host.keep()
    await host.ship()
    with (host.log_dir / "a/1" / segment_name(0)).open("ab") as file:
        file.write(encode_frame(1, b"torn")[:-1])
    await host.keep()
    assert host.metric("meter_shipper_lag_bytes") > 0
    assert host.metric("meter_shipper_lag_seconds") == 0


async def test_the_folder_of_a_process_that_is_gone_is_removed_once_all_is_shipped(
    host: Host,
) -> None:
    log = host.log("host/boot/1/tiny_0")
    write(log, 1, 1)
    await host.keep(RETIRE_EVERY + 1)
    log.close()
    await host.keep(RETIRE_EVERY)
    assert log_files(host, "host/boot/1/tiny_0")  # nothing of it is shipped yet
    await host.ship()
    await host.keep(RETIRE_EVERY)
    assert not (host.log_dir / "host").exists()
    assert len(host.kafka.taken) == 2


async def test_the_folder_of_a_live_process_stays_though_all_is_shipped(host: Host) -> None:
    log = host.log("a/1")
    write(log, 1)
    await host.keep()
    await host.ship()
    await host.keep(2 * RETIRE_EVERY)
    write(log, 1)
    await host.ship()
    assert len(host.kafka.taken) == 2


async def test_a_folder_whose_writer_is_unknown_stays(host: Host) -> None:
    folder = host.log_dir / "a" / "1"
    folder.mkdir(parents=True)
    (folder / segment_name(0)).write_bytes(encode_frame(0, b"one"))
    await host.keep()
    await host.ship()
    await host.keep(2 * RETIRE_EVERY)
    assert (folder / segment_name(0)).exists()
    assert len(host.kafka.taken) == 1


@pytest.mark.parametrize(("damage", "corrupt"), [(b"", 0), (b"\xff" * 40, 1)])
async def test_what_a_dead_process_left_torn_goes_and_only_damage_is_told_of(
    host: Host, damage: bytes, corrupt: int
) -> None:
    log = host.log("a/1")
    write(log, 1)
    log.close()
    with (host.log_dir / "a/1" / segment_name(0)).open("ab") as file:
        file.write(damage or encode_frame(1, b"torn")[:-1])
    await host.keep()
    await host.ship()
    await host.keep(RETIRE_EVERY)
    assert not (host.log_dir / "a").exists()
    assert host.metric("meter_usage_log_corrupt_frames_total") == corrupt


async def test_a_source_with_a_broken_checkpoint_does_not_stop_the_others(host: Host) -> None:
    write(host.log("a/1"), 1)
    write(host.log("b/1"), 1)
    (host.log_dir / "a/1" / CHECKPOINT).write_text("{")
    await host.keep(3)
    await host.ship()
    assert [record.key for record in host.kafka.taken] == [b"b/1"]
    assert host.metric("meter_shipper_failures_total") == 1


async def test_batches_whose_send_failed_count_as_redelivered(host: Host) -> None:
    write(host.log("a/1"), 1, 1, 1)
    host.kafka.failures = 2
    ship.RETRY_FIRST_S, before = 0.0, ship.RETRY_FIRST_S
    try:
        await host.keep()
        await host.ship()
    finally:
        ship.RETRY_FIRST_S = before
    assert host.metric("meter_redelivered_batches_total") == 6


async def test_after_a_kill_what_may_have_been_on_its_way_counts_as_redelivered(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship, "DRAIN_S", 0.05)
    write(host.log("a/1"), 1, 1)
    host.shipper.lock()
    host.kafka.frozen = True
    stop = asyncio.Event()
    run = asyncio.create_task(host.shipper.run(stop))
    await asyncio.sleep(0.3)
    stop.set()
    await asyncio.wait_for(run, 10)  # its time to drain runs out
    del host.shipper
    host.kafka.frozen = False
    host.start()
    host.shipper.lock()
    write(host.log("b/1"), 1)  # was never sent before
    await host.keep()
    await host.ship()
    assert len(host.kafka.taken) == 3
    assert host.metric("meter_redelivered_batches_total") == 2


async def test_a_stopped_shipper_has_shipped_what_was_there(host: Host) -> None:
    host.shipper.lock()
    stop = asyncio.Event()
    run = asyncio.create_task(host.shipper.run(stop))
    await asyncio.sleep(0.05)
    write(host.log("late/1"), *[1] * 50)
    stop.set()
    await asyncio.wait_for(run, 10)
    assert len(host.kafka.taken) == 50


async def test_no_more_is_on_its_way_than_a_bound_and_every_source_has_its_turn(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship, "FLIGHT_BYTES", 100)
    for n in range(5):
        write(host.log(f"s/{n}"), 1, 1)
    await host.keep()
    keys = []
    while await host.shipper.ship_once():
        keys.append(sorted({record.key for record in host.kafka.taken}))
        host.kafka.taken.clear()
    assert max(map(len, keys)) <= 2
    assert sorted(key for taken in keys for key in taken) == [b"s/%d" % n for n in range(5)]


async def test_a_segment_is_not_begun_while_somebody_drops(host: Host) -> None:
    write(host.log("a/1"), 1)
    await host.keep()
    with drop_lock(host.log_dir) as mine:
        assert mine
        assert not await host.shipper.ship_once()
    assert await host.shipper.ship_once()


async def test_polling_idle_sources_lists_no_folder(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(64):
        write(host.log(f"s/{n}"), 1)
    await host.keep()
    await host.ship()
    await asyncio.sleep(0.1)  # folders that changed just now are looked at again
    await host.shipper.ship_once()
    listed: list[object] = []
    for name in ("listdir", "scandir", "open"):
        monkeypatch.setattr(os, name, lambda *args, **_: listed.append(args))
    assert not await host.shipper.ship_once()
    assert listed == []


async def test_a_new_segment_is_seen_by_the_next_poll(host: Host) -> None:
    log = host.log("a/1", segment_bytes=HEADER_BYTES)
    for n in range(20):
        write(log, 1)
        await host.keep(n == 0)
        await host.ship()
        assert len(host.kafka.taken) == n + 1


async def test_emitters_see_that_a_shipper_is_at_work(host: Host) -> None:
    host.shipper.lock()
    os.utime(host.log_dir / "shipper.lock", (1, 1))
    now_s = (host.log_dir / CHECKPOINT).parent.stat().st_mtime
    assert not is_tended(host.log_dir, now_s)
    await host.keep()
    assert is_tended(host.log_dir, (host.log_dir / "shipper.lock").stat().st_mtime + 1)


def log_files(host: Host, source: str) -> list[Path]:
    return [p for p in (host.log_dir / source).iterdir() if p.name != WRITER_LOCK]

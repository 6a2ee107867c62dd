"""The usage log, the shipper and Kafka as real processes: killed, frozen, away; and full disks."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from metering.wal import requests_in
from metering.wal_cap import size_bytes, survey
from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from streams.topics import USAGE_BATCHES
from tests.waiting import until

pytestmark = pytest.mark.stack

REPO = Path(__file__).parents[2]
CAP_BYTES = 256 * 1024
PAD_BYTES = 1500
FULL = "METER_TEST_FULL"
EMITTER = """
import json, os, resource, sys, time
from pathlib import Path
from triton_models.emitter.log import UsageLog

log_dir, source, answers, batches, pad, pause_s = sys.argv[1:]
log = UsageLog.from_env(Path(log_dir), source, os.environ)
out = os.open(answers, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
endless = resource.RLIM_INFINITY
full_from, full_to = map(int, os.environ.get("METER_TEST_FULL", "-1,-1").split(","))
for n in range(int(batches)):
    requests = n % 5 + 1
    sequence = log.reserve()
    event = {"end_epoch_ns": time.time_ns(), "requests": [{}] * requests, "pad": "x" * int(pad)}
    if full_from <= n < full_to:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, endless))
    try:
        log.append(sequence, json.dumps(event).encode())
        outcome = "logged"
    except OSError:
        outcome = "lost"
    resource.setrlimit(resource.RLIMIT_FSIZE, (endless, endless))
    os.write(out, f"{source} {sequence} {requests} {outcome}\\n".encode())
    time.sleep(float(pause_s))
if "METER_TEST_DIE" in os.environ:
    os.kill(os.getpid(), 9)
log.close()
"""
Batch = tuple[str, int]
"""Source and sequence."""


@dataclass
class Host:
    """One log folder, who writes to it, and who ships it. ``answers`` is what clients know."""

    folder: Path
    log_dir: Path
    kafka: str
    env: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def emit(
        self, source: str, batches: int, *, pause_s: float = 0.0, dies: bool = False
    ) -> subprocess.Popen[bytes]:
        """``dies``: by kill -9, when all is logged."""
        command = [sys.executable, "-c", EMITTER, str(self.log_dir), source]
        command += [str(self.folder / "answers"), str(batches), str(PAD_BYTES), str(pause_s)]
        return self._start(command, {"METER_TEST_DIE": "yes"} if dies else {})

    def ship(self, kafka: str | None = None) -> Shipper:
        port = free_port()
        env = {
            "METER_KAFKA": kafka or self.kafka,
            "METER_LOG_DIR": str(self.log_dir),
            "METER_METRICS_PORT": str(port),
        }
        return Shipper(self._start([sys.executable, "-m", "streams.shipper"], env), port)

    def _start(self, command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / "processes.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=REPO, env={**os.environ, **self.env, **env}, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def answered(self, outcome: str) -> dict[Batch, int]:
        """Requests per batch with that outcome."""
        answers = self.folder / "answers"
        lines = answers.read_text().splitlines() if answers.exists() else []
        rows = [line.split() for line in lines]
        whole = [row for row in rows if len(row) == 4]
        return {(s, int(n)): int(requests) for s, n, requests, how in whole if how == outcome}

    @property
    def size_bytes(self) -> int:
        return size_bytes(survey(self.log_dir).values())


@dataclass
class Shipper:
    process: subprocess.Popen[bytes]
    port: int

    def metrics(self) -> dict[str, float]:
        """Empty while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=2) as got:
                text = got.read().decode()
        except OSError:
            return {}
        return {name: float(v) for name, v in re.findall(r"^(meter_\w+) (\S+)$", text, re.M)}

    async def until(self, timeout_s: float = 240, **least: float) -> dict[str, float]:
        """The metrics, once nothing waits and each named one has come to its value."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = await asyncio.to_thread(self.metrics)
            if found.get("meter_shipper_lag_bytes") == 0 and all(
                found[f"meter_{name}"] >= value for name, value in least.items()
            ):
                return found
            assert self.process.poll() is None, "the shipper has ended"
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.1)

    async def end(self) -> None:
        """Send SIGTERM, and wait until the shipper has ended by itself."""
        self.process.terminate()
        assert await asyncio.to_thread(self.process.wait, 120) == 0


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    config = StackConfig(tmp_path_factory.mktemp("log-faults") / "stack", preferred_ports=False)
    async with Stack(config, only=("topics",)) as running:
        yield running


@pytest.fixture
def host(stack: Stack, tmp_path: Path) -> Iterator[Host]:
    with running(tmp_path, tmp_path / "usage-log", stack.settings.kafka) as found:
        yield found


@contextmanager
def running(folder: Path, log_dir: Path, kafka: str) -> Iterator[Host]:
    env = {"METER_LOG_MAX_BYTES": str(CAP_BYTES)}
    found = Host(folder, log_dir, kafka, env)
    try:
        yield found
    finally:
        for process in found.processes:
            process.kill()
            process.wait()


@contextmanager
def frozen(stack: Stack) -> Iterator[None]:
    stack.kill("kafka", signal.SIGSTOP)
    try:
        yield
    finally:
        stack.kill("kafka", signal.SIGCONT)


async def in_kafka(kafka: str, prefix: str) -> dict[Batch, list[int]]:
    """Of sources that begin so: the requests of each message of a batch."""
    consumer = AIOKafkaConsumer(
        USAGE_BATCHES,
        bootstrap_servers=kafka,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        found: dict[Batch, list[int]] = {}
        for partition, end in ends.items():
            while await consumer.position(partition) < end:
                records = await consumer.getmany(partition, timeout_ms=500)
                for message in records.get(partition, []):
                    headers = dict(message.headers)
                    batch = (headers["ce_source"].decode(), int(headers["ce_id"]))
                    if batch[0].startswith(prefix):
                        found.setdefault(batch, []).append(requests_in(message.value or b""))
        return found
    finally:
        await consumer.stop()


def closed_port() -> str:
    return f"127.0.0.1:{free_port()}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def done(*emitters: subprocess.Popen[bytes], code: int = 0) -> None:
    for emitter in emitters:
        assert await asyncio.to_thread(emitter.wait, 60) == code


def balanced(
    host: Host, arrived: dict[Batch, list[int]], metrics: dict[str, float]
) -> tuple[int, int]:
    """Every batch that was logged has arrived or is counted as dropped; (batches, requests)."""
    logged = host.answered("logged")
    assert set(arrived) <= set(logged)
    assert all(set(found) == {logged[batch]} for batch, found in arrived.items())
    gone = {batch: n for batch, n in logged.items() if batch not in arrived}
    dropped = (len(gone), sum(gone.values()))
    assert dropped == (
        metrics["meter_usage_log_dropped_batches_total"],
        metrics["meter_usage_log_dropped_requests_total"],
    )
    return dropped


async def test_with_kafka_away_the_cap_holds_and_drops_are_counted_over_kills_of_the_shipper(
    host: Host,
) -> None:
    drawn = random.Random(3)
    emitters = [host.emit(f"away/{n}", 400, pause_s=0.01) for n in range(3)]
    for _ in range(5):
        shipper = host.ship(closed_port())
        await asyncio.sleep(drawn.uniform(1.0, 2.0))
        shipper.process.kill()
    await done(*emitters)
    shipper = host.ship(closed_port())
    await until(lambda: bool(shipper.metrics()) and host.size_bytes <= CAP_BYTES, 120.0)
    assert shipper.metrics()["meter_usage_log_max_bytes"] == CAP_BYTES
    await shipper.end()
    shipper = host.ship()
    metrics = await shipper.until(shipped_batches_total=1)
    arrived = await in_kafka(host.kafka, "away/")
    batches, requests = balanced(host, arrived, metrics)
    assert 300 < batches < 1200
    assert requests > batches
    assert metrics["meter_usage_log_dropped_bytes_total"] > batches * PAD_BYTES
    for source in ("away/0", "away/1", "away/2"):  # it is the oldest that are missing
        assert (source, 399) in arrived
    await shipper.end()
    again = await host.ship().until(usage_log_dropped_batches_total=1)
    assert balanced(host, arrived, again) == (batches, requests)


async def test_without_a_shipper_the_emitter_keeps_the_cap_and_what_it_dropped_is_counted_later(
    host: Host,
) -> None:
    emitted = 1500
    emitter = host.emit("alone/0", emitted, pause_s=0.003, dies=True)
    largest = 0
    while emitter.poll() is None:
        largest = max(largest, host.size_bytes)
        await asyncio.sleep(0.02)
    # The cap is looked after beside the batches: on a busy machine many come in between.
    assert largest < emitted * PAD_BYTES / 2
    shipper = host.ship()
    metrics = await shipper.until(usage_log_dropped_batches_total=1)
    batches, _ = balanced(host, await in_kafka(host.kafka, "alone/"), metrics)
    assert batches > emitted / 3


async def test_a_shipper_that_is_killed_under_load_loses_nothing_and_adds_nothing(
    host: Host,
) -> None:
    drawn = random.Random(5)
    host.env = {}
    emitters = [host.emit(f"killed/{n}", 600, pause_s=0.005) for n in range(4)]
    for _ in range(6):
        shipper = host.ship()
        await asyncio.sleep(drawn.uniform(0.6, 1.6))
        shipper.process.kill()
    await done(*emitters)
    shipper = host.ship()
    metrics = await shipper.until()
    arrived = await in_kafka(host.kafka, "killed/")
    assert set(arrived) == set(host.answered("logged"))
    assert balanced(host, arrived, metrics) == (0, 0)
    assert metrics["meter_usage_log_missing_batches_total"] == 0


async def test_with_kafka_frozen_a_shipper_starts_waits_stops_in_time_and_loses_nothing(
    host: Host, stack: Stack
) -> None:
    host.env = {}
    shipper = host.ship()
    await shipper.until()
    emitter = host.emit("frozen/0", 300, pause_s=0.01)
    with frozen(stack):
        await asyncio.sleep(2)
        waiting = shipper.metrics()
        assert waiting["meter_shipper_lag_bytes"] > 0
        assert waiting["meter_shipper_lag_seconds"] > 1
        await shipper.end()
        shipper = host.ship()  # starts with Kafka frozen
        await until(lambda: shipper.metrics().get("meter_shipper_lag_bytes", 0) > 0, 120.0)
    await done(emitter)
    metrics = await shipper.until(shipped_batches_total=1)
    arrived = await in_kafka(host.kafka, "frozen/")
    assert set(arrived) == set(host.answered("logged"))
    assert balanced(host, arrived, metrics) == (0, 0)
    twice = sum(len(found) - 1 for found in arrived.values())
    assert twice <= metrics["meter_redelivered_batches_total"]


async def test_a_shipper_told_to_stop_ships_what_is_there_and_the_next_one_sends_nothing_again(
    host: Host,
) -> None:
    shipper = host.ship()
    await shipper.until()
    await done(host.emit("drained/0", 100))
    await shipper.end()
    arrived = await in_kafka(host.kafka, "drained/")
    assert set(arrived) == set(host.answered("logged"))
    after = host.ship()
    metrics = await after.until()
    assert metrics["meter_redelivered_batches_total"] == 0
    assert metrics["meter_shipped_batches_total"] == 0


async def test_folders_of_processes_that_are_gone_are_removed_and_that_of_a_live_one_stays(
    host: Host,
) -> None:
    host.env = {}
    shipper = host.ship()
    alive = host.emit("host/boot/1/live_0", 10_000, pause_s=0.05)
    for life in range(4):
        dies = life % 2 == 1
        dead = host.emit(f"host/boot/{life + 2}/dead_0", 5, dies=dies)
        await done(dead, code=-9 if dies else 0)
    boot = host.log_dir / "host" / "boot"
    await until(lambda: {p.name for p in boot.iterdir()} == {"1"})
    alive.kill()
    alive.wait()
    await shipper.until()
    arrived = set(await in_kafka(host.kafka, "host/boot/"))
    answered = set(host.answered("logged"))
    # The kill may have come between a batch's entry in the log and its answer.
    begun = ("host/boot/1/live_0", sum(source.endswith("live_0") for source, _ in answered))
    assert answered <= arrived <= {*answered, begun}


@contextmanager
def tmpfs(mount_point: Path, size: str) -> Iterator[Path]:
    """A disk of that size, in a mount namespace of its own: nothing is left of it afterwards."""
    mount_point.mkdir(exist_ok=True)
    script = 'mount -t tmpfs -o size="$1" meter "$0" && echo mounted && exec sleep 600'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    with subprocess.Popen(
        [*command, str(mount_point), size], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as keeper:
        try:
            assert keeper.stdout is not None
            if keeper.stdout.readline() != b"mounted\n":
                raise OSError("a tmpfs can't be mounted here")
            yield Path(f"/proc/{keeper.pid}/root") / mount_point.relative_to("/")
        finally:
            keeper.kill()


@contextmanager
def file_limit(folder: Path, _: str) -> Iterator[Path]:
    """Where nothing can be mounted: from one batch to another no file takes a frame."""
    os.environ[FULL] = "600,1400"
    try:
        yield folder
    finally:
        del os.environ[FULL]


def can_mount() -> bool:
    point = Path("/tmp") / f"meter-mount-{os.getpid()}"  # noqa: S108  # removed below
    try:
        with suppress(OSError), tmpfs(point, "65536"):
            return True
        return False
    finally:
        shutil.rmtree(point, ignore_errors=True)


@pytest.fixture(params=[tmpfs if can_mount() else file_limit], ids=lambda disk: disk.__name__)
def small_disk(request: pytest.FixtureRequest, stack: Stack, tmp_path: Path) -> Iterator[Host]:
    """A host whose usage log is on a disk of 1 MiB, far below the log's cap."""
    with (
        request.param(tmp_path / "disk", str(1024**2)) as mount,
        running(tmp_path, mount / "usage-log", stack.settings.kafka) as found,
    ):
        found.env = {}
        yield found


async def test_on_a_full_disk_every_batch_goes_on_and_the_loss_is_counted_to_the_request(
    small_disk: Host,
) -> None:
    host = small_disk
    await done(host.emit("full/0", 1500, dies=True), code=-9)
    lost = host.answered("lost")
    assert len(host.answered("logged")) + len(lost) == 1500  # nobody was kept waiting
    assert 400 < len(lost) < 1400
    shipper = host.ship()
    metrics = await shipper.until(usage_log_unwritten_batches_total=1)
    assert unwritten(metrics) == (len(lost), sum(lost.values()))
    arrived = await in_kafka(host.kafka, "full/")
    assert set(arrived) == set(host.answered("logged"))
    assert balanced(host, arrived, metrics) == (0, 0)


async def test_a_full_disk_is_used_again_as_soon_as_what_is_on_it_was_shipped(
    small_disk: Host,
) -> None:
    host = small_disk
    emitter = host.emit("again/0", 1500, pause_s=0.004)
    await until(lambda: len(host.answered("lost")) > 100)
    shipper = host.ship()
    await done(emitter)
    logged, lost = host.answered("logged"), host.answered("lost")
    assert ("again/0", 1499) in logged
    metrics = await shipper.until(usage_log_unwritten_batches_total=len(lost))
    assert unwritten(metrics) == (len(lost), sum(lost.values()))
    assert metrics["meter_usage_log_missing_batches_total"] == len(lost)  # the gap says the same
    assert set(await in_kafka(host.kafka, "again/")) == set(logged)


def unwritten(metrics: dict[str, float]) -> tuple[float, float]:
    """Batches and requests."""
    names = ("batches", "requests")
    batches, requests = (metrics[f"meter_usage_log_unwritten_{name}_total"] for name in names)
    return batches, requests

"""A log that loses, on a stack of real processes; and whether the checks of it find anything."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer

from benchmarks.faults.check import Findings, look, settled
from benchmarks.faults.disk import filled, log_on_small_disk
from benchmarks.faults.load import MODELS, Answers, Clients
from benchmarks.faults.losses import losses_of
from benchmarks.faults.outages import away
from benchmarks.faults.parts import Fault, Parts, Sizes
from metering.cloudevents import USAGE_BATCH_TYPE, encode_headers
from metering.errors import StackError
from streams.publisher import Publisher, Record
from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from streams.topics import USAGE_BATCHES

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

SEED = 21
SIZES = Sizes(
    kills=0,
    shortest_pause_s=0.0,
    longest_pause_s=0.0,
    before_s=1.0,
    after_s=1.0,
    frozen_s=0.0,
    away_s=0.0,
    cap_s=1.0,
    disk_s=1.0,
    cap_bytes=16 * 1024,
    disk_bytes=2 * 1024**2,
    settle_s=240.0,
)


@dataclass
class Losing:
    """``disk`` is where the log lies; ``None`` where none can be mounted."""

    stack: Stack
    disk: Path | None


@pytest.fixture(scope="module")
async def losing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Losing]:
    folder = tmp_path_factory.mktemp("losing") / "stack"
    config = StackConfig(
        folder, models=MODELS, preferred_ports=False, log_max_bytes=SIZES.cap_bytes
    )
    with ExitStack() as mounts:
        disk: Path | None = None
        with suppress(StackError):
            disk = mounts.enter_context(log_on_small_disk(folder, SIZES.disk_bytes))
        async with Stack(config) as stack:
            yield Losing(stack, disk)


def failing(parts: Parts) -> dict[str, float]:
    """All claims but that about latency: others are at work on this machine."""
    return {
        name: figure.value
        for name, figure in parts.figures.items()
        if figure.holds is False and "p99" not in name
    }


async def test_what_overflows_the_log_is_counted_and_everything_else_is_stored_once(
    losing: Losing,
) -> None:
    parts = Parts(losing.stack, SIZES, SEED, print)
    await parts.fault(Fault("cap", SIZES.cap_s, away, loses="dropped"))
    assert failing(parts) == {}
    figures = {name: figure.value for name, figure in parts.figures.items()}
    assert figures["cap: counted as dropped"] > 0
    assert figures["cap: stored"] > 100
    assert figures["cap: answered"] == figures["cap: stored"] + figures["cap: counted as dropped"]


async def test_a_full_disk_costs_no_answer_what_it_loses_is_counted_and_no_restart_is_needed(
    losing: Losing,
) -> None:
    disk = losing.disk
    if disk is None:  # The benchmark says so with a claim that fails; here there is no disk.
        return
    parts = Parts(losing.stack, SIZES, SEED, print)
    await parts.fault(Fault("disk", SIZES.disk_s, lambda _: filled(disk), loses="unwritten"))
    assert failing(parts) == {}
    figures = {name: figure.value for name, figure in parts.figures.items()}
    assert figures["disk: counted as unwritten"] > 0
    assert figures["disk: answered"] == sum(
        figures[f"disk: {what}"]
        for what in ("stored", "counted as dropped", "counted as unwritten")
    )


class Spoiler:
    """Spoils what is stored and published, by hand."""

    def __init__(self, stack: Stack, answers: Answers) -> None:
        self._stack = stack
        self._answers = answers

    async def sql(self, text: str) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.post(self._stack.settings.clickhouse, data=text) as answer,
        ):
            assert answer.status == 200, await answer.text()

    async def delete_line(self, request_id: str, but_of: str = "") -> None:
        await self.sql(
            "ALTER TABLE meter.cost_request_lines DELETE "
            f"WHERE request_id = '{request_id}' AND tenant != '{but_of}' "
            "SETTINGS mutations_sync = 2"
        )

    async def insert_line_again(self, request_id: str, change: str) -> None:
        await self.sql(
            f"INSERT INTO meter.cost_request_lines SELECT * REPLACE ({change}) "
            f"FROM meter.cost_request_lines FINAL WHERE request_id = '{request_id}'"
        )

    async def insert_window_again(self, change: str, oldest: bool) -> None:
        order = "ASC" if oldest else "DESC"
        await self.sql(
            "INSERT INTO meter.cost_window_rows "
            f"SELECT * REPLACE (version + 1 AS version, {change}) "
            "FROM meter.cost_window_rows FINAL WHERE window_seconds = 10 "
            f"ORDER BY window_start {order}, tenant, model LIMIT 1"
        )

    async def publish_again(self, sequence: int) -> int:
        """A partition's last batch under another sequence; how many requests it has."""
        settings = self._stack.settings
        consumer = AIOKafkaConsumer(
            USAGE_BATCHES, **settings.kafka_client(), enable_auto_commit=False
        )
        await consumer.start()
        try:
            ends = await consumer.end_offsets(consumer.assignment())
            partition = max(ends, key=ends.__getitem__)
            consumer.unsubscribe()
            consumer.assign([partition])
            consumer.seek(partition, ends[partition] - 1)
            batch = json.loads((await consumer.getone()).value)
        finally:
            await consumer.stop()
        again = json.dumps({**batch, "sequence": sequence}).encode()
        source = batch["source"]
        headers = encode_headers(USAGE_BATCH_TYPE, source, str(sequence), None)
        publisher = Publisher(settings)
        await publisher.publish([Record(USAGE_BATCHES, source.encode(), again, headers)])
        await publisher.stop()
        return len(batch["requests"]["request_id"])

    async def until(self, holds: Callable[[Findings], bool]) -> Findings:
        deadline = time.monotonic() + 240
        while not holds(found := await self.look()):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.2)
        return found

    async def look(self) -> Findings:
        lost = await losses_of(self._stack, 30)
        return await look(self._stack, self._answers, "spoilt", lost)


async def test_the_checks_find_what_is_spoilt_by_hand(losing: Losing) -> None:
    """The last one with this stack."""
    stack = losing.stack
    lost = await losses_of(stack, 30)
    clients = Clients(stack.endpoints.triton_grpc, "spoilt", SEED)
    await asyncio.sleep(1.5)
    answers = await clients.end()
    assert not answers.failed
    assert (await settled(stack, answers, "spoilt", 240, lost))[0].problems == []
    spoiler = Spoiler(stack, answers)
    first, second, third = sorted(answers.told)[:3]

    await spoiler.insert_line_again(first, "position + 1000 AS position")
    found = await spoiler.look()
    assert found.twice == (first,)
    assert (len(found.unconserved), len(found.windows)) == (1, 2)  # 10 s and 60 s

    await spoiler.insert_line_again(second, "'somebody' AS tenant")
    await spoiler.delete_line(second, but_of="somebody")
    found = await spoiler.look()
    assert found.wrong == (second,)
    assert len(found.windows) > 2

    windows = len(found.windows)
    await spoiler.insert_window_again("gpu_ns + 1 AS gpu_ns", oldest=True)
    assert len((await spoiler.look()).windows) == windows + 1
    await spoiler.insert_window_again("gpu_ns - 1 AS gpu_ns", oldest=True)
    assert len((await spoiler.look()).windows) == windows
    await spoiler.insert_window_again("false AS final", oldest=True)
    # Nobody complains of one that has only just ended.
    await spoiler.until(lambda f: any("not final" in window for window in f.windows))

    requests = await spoiler.publish_again(sequence=1_000_000)
    found = await spoiler.until(lambda f: len(f.twice) == 1 + requests)
    assert found.gaps > 900_000

    await spoiler.delete_line(third)
    found = await spoiler.look()
    assert (found.missing, found.unaccounted) == ([third], 1)

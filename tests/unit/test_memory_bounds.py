"""What is read again from a topic is held in memory a few megabytes at a time, whatever waits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from metering.cloudevents import USAGE_BATCH_TYPE, encode_headers
from metering.ledger import Ledger
from metering.lines import CostLines
from metering.messages import Message
from streams.publisher import Record
from streams.settings import Settings
from streams.topics import USAGE_BATCHES
from streams.worker import desks as desks_module
from streams.worker import reread
from streams.worker.desks import Desks
from streams.worker.pricing import TAKE_BYTES
from streams.worker.reread import MOST_BYTES, read_stretch
from streams.worker.transaction import Lost
from tests.conftest import make_batch
from tests.unit.test_pricing_partition import Bench, Sinks

MIB = 1024**2
NS = 10**9
NOON_NS = 1_780_000_000 * NS


class Held(bytes):
    """The value of a message that counts how many bytes of such are alive."""

    alive = most = 0

    def __init__(self, *_: object) -> None:
        Held.alive += len(self)
        Held.most = max(Held.most, Held.alive)

    def __del__(self) -> None:
        Held.alive -= len(self)


class Topic:
    """An aiokafka consumer of a topic whose values are made as they are read. Small ones first:
    what has come so far says nothing about what comes next."""

    sizes: tuple[int, ...] = (*[2_000] * 300, *[3 * MIB] * 40, 15 * MIB, *[200_000] * 100)

    def __init__(self, **_: object) -> None:
        self.at = 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def assign(self, _: object) -> None: ...

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[Any, int]:
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[Any, int]:
        return dict.fromkeys(partitions, len(self.sizes))

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.at = offset

    async def position(self, _: TopicPartition) -> int:
        return self.at

    async def getmany(
        self, partition: TopicPartition, *, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[Any]]:
        first = self.at
        self.at = min(first + max_records, len(self.sizes))
        return {partition: [self.record(offset) for offset in range(first, self.at)]}

    def record(self, offset: int) -> Any:
        value = Held(self.value(offset))
        headers = encode_headers(USAGE_BATCH_TYPE, "s", str(offset), None)
        return SimpleNamespace(
            offset=offset, timestamp=NOON_NS // 10**6, value=value, headers=tuple(headers)
        )

    def value(self, offset: int) -> bytes:
        return b" " * self.sizes[offset]


class Usage(Topic):
    """Batches of 2,048 requests whose names are long, as many as a frame takes."""

    sizes = (0,) * 30
    json: bytes

    def value(self, offset: int) -> bytes:
        return self.json.replace(b'"sequence":0', b'"sequence":%d' % offset, 1)


@pytest.fixture(autouse=True)
def _counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reread, "AIOKafkaConsumer", Topic)
    Held.alive = Held.most = 0


async def test_a_stretch_ends_where_its_messages_are_large() -> None:
    assert MOST_BYTES == TAKE_BYTES
    first, offsets = 0, list[int]()
    while first < len(Topic.sizes):
        found, first = await read_stretch(Settings(), USAGE_BATCHES, 0, first, len(Topic.sizes))
        assert sum(len(message.value) for message in found[:-1]) < MOST_BYTES
        offsets += [message.offset for message in found]
    assert offsets == list(range(len(Topic.sizes)))


class Counting(Sinks):
    """What is stored and sent is dropped."""

    count = 0

    def store(self, lines: CostLines) -> None:
        self.count += lines.count

    async def commit(self, made: Iterable[Record]) -> None: ...


def bench_of(folder: Path, ledger: Ledger) -> Bench:
    bench = Bench(folder, Counting(), ledger=ledger)
    stretch = partial(read_stretch, Settings(), USAGE_BATCHES, 0)
    bench.pricing._read_stretch = stretch
    return bench


@pytest.mark.parametrize("way", ["stored again", "passed over"])
async def test_large_messages_that_are_read_again_are_held_a_take_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    request = {"tenant": "t" * 250, "feature": "f" * 250, "team": "g" * 250}
    Usage.json = make_batch(0, requests=[request] * 2_000).model_dump_json().encode()
    monkeypatch.setattr(reread, "AIOKafkaConsumer", Usage)
    largest = len(Usage().value(29))
    assert 29 * largest > 4 * TAKE_BYTES
    if way == "stored again":
        bench = bench_of(tmp_path, Ledger(counted_to=29))
        await bench.pricing.store_again(0)
    else:
        bench = bench_of(tmp_path, Ledger())
        last = Message(30, NOON_NS, Usage.json.replace(b'"sequence":0', b'"sequence":30', 1))
        await bench.pricing.handle([last])
    assert isinstance(bench.sinks, Counting)
    assert bench.sinks.count >= 30 * 2_000
    # A stretch may still be held while the next one is read.
    assert Held.most <= 2 * (TAKE_BYTES + largest)


@pytest.mark.parametrize("way", ["stored again", "passed over"])
async def test_lines_that_are_made_again_wait_until_the_store_has_room(
    tmp_path: Path, way: str
) -> None:
    """Not more than those of one stretch are put between two looks."""
    messages = {n: message(n) for n in range(40)}
    bench = Bench(tmp_path, ledger=Ledger(counted_to=39) if way == "stored again" else Ledger())
    bench.topic = messages
    if way == "stored again":
        await bench.pricing.store_again(0)
    else:
        await bench.pricing.handle([message(40)])
    assert len(bench.sinks.lines) >= 40 * 5
    assert bench.sinks.most_waiting == 2 * 5, "a stretch of the bench is two messages"


def message(offset: int) -> Message:
    value = make_batch(offset, requests=[{}] * 5).model_dump_json().encode()
    return Message(offset, NOON_NS, value)


async def test_while_the_store_is_full_a_partition_that_is_lost_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Full:
        async def room(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(desks_module, "LOOK_EVERY_S", 0.001)
    desks = Desks.__new__(Desks)
    desks.lines = Full()  # type: ignore[assignment]
    desks.is_mine = lambda topic, partition: (topic, partition) != (USAGE_BATCHES, 3)
    with pytest.raises(Lost, match="partition 3"):
        await desks._room(3)

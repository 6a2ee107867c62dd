"""Lines on their way into ClickHouse: none is forgotten, few inserts, and room only for so many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from prometheus_client import CollectorRegistry

from metering.errors import SinkUnavailable
from metering.lines import CostLines
from metering.prices import PriceBook
from metering.pricing import price_batch
from metering.usage import UsageBatch
from sinks.prometheus import WorkerMetrics
from streams.worker import line_store as line_store_module
from streams.worker import retries as retries_module
from streams.worker.line_store import LineStore

MakeBatch = Callable[..., UsageBatch]


class ClickHouse:
    def __init__(self) -> None:
        self.inserts: list[list[int]] = []
        self.away = 0

    def write(self, parts: Sequence[CostLines]) -> None:
        if self.away:
            self.away -= 1
            raise SinkUnavailable("ClickHouse", 1, "away")
        self.inserts.append([line.sequence for lines in parts for line in lines])


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_store_module, "WITHIN_S", 0.02)
    monkeypatch.setattr(retries_module, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(retries_module, "RETRY_MOST_S", 0.002)


@pytest.fixture
def metrics() -> WorkerMetrics:
    return WorkerMetrics(CollectorRegistry())


def lines_of(batch: UsageBatch) -> CostLines:
    return CostLines.of(price_batch(batch, PriceBook([])))


async def test_lines_of_several_partitions_go_in_one_insert(
    batch_of: MakeBatch, metrics: WorkerMetrics
) -> None:
    there = ClickHouse()
    store = LineStore(there.write, metrics)
    for n in range(6):
        store.put(n % 3, lines_of(batch_of(n)))
    for partition in range(3):
        await store.stored(partition)
    assert [sorted(insert) for insert in there.inserts] == [list(range(6))]


async def test_what_is_refused_is_tried_again_until_it_is_taken(
    batch_of: MakeBatch, metrics: WorkerMetrics
) -> None:
    there = ClickHouse()
    there.away = 3
    store = LineStore(there.write, metrics)
    store.put(0, lines_of(batch_of(7)))
    stored = asyncio.create_task(store.stored(0))
    await asyncio.sleep(0.03)
    assert not stored.done()
    await stored
    assert there.inserts == [[7]]
    assert metrics.write_failures._value.get() == 3


async def test_nothing_is_waited_for_that_was_put_later(
    batch_of: MakeBatch, metrics: WorkerMetrics
) -> None:
    there = ClickHouse()
    store = LineStore(there.write, metrics)
    await store.stored(0)
    store.put(0, lines_of(batch_of(1)))
    await store.stored(0)
    there.away = 10**6
    store.put(1, lines_of(batch_of(2)))
    await store.stored(0)
    assert there.inserts == [[1]]
    there.away = 0
    await store.stored(1)


async def test_there_is_room_again_once_lines_are_stored(
    batch_of: MakeBatch, metrics: WorkerMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_store_module, "MOST_WAITING", 3)
    there = ClickHouse()
    there.away = 10**6
    store = LineStore(there.write, metrics)
    await store.room()
    store.put(0, lines_of(batch_of(1, requests=[{}] * 4)))
    room = asyncio.create_task(store.room())
    await asyncio.sleep(0.05)
    assert not room.done()
    there.away = 0
    await room

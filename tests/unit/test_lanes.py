"""Partitions at their own pace: in order, one call at a time, and not too many waiting."""

from __future__ import annotations

import asyncio
from typing import cast

from metering.messages import Message
from streams.worker.intake import Take
from streams.worker.lanes import MOST_BYTES, Lanes


class Some:
    """Messages of a partition."""

    def __init__(self, partition: int, *offsets: int) -> None:
        self.partition = partition
        self.messages = [Message(offset, 0, b"") for offset in offsets]
        self.size = 0


def take(partition: int, *offsets: int) -> Take:
    return cast("Take", Some(partition, *offsets))


class Handler:
    def __init__(self) -> None:
        self.open = {0: asyncio.Event(), 1: asyncio.Event()}
        self.done: list[tuple[int, list[int]]] = []
        self.running: set[int] = set()

    async def __call__(self, partition: int, taken: list[Take]) -> None:
        assert partition not in self.running
        self.running.add(partition)
        await self.open[partition].wait()
        self.running.discard(partition)
        self.done.append((partition, [m.offset for t in taken for m in t.messages]))


async def test_a_busy_partition_holds_up_no_other_and_its_own_wait_together() -> None:
    handler = Handler()
    lanes = Lanes(handler, 100)
    await lanes.put(take(0, 1, 2))
    await asyncio.sleep(0)
    for n in (3, 4):
        await lanes.put(take(0, n))
    await lanes.put(take(1, 7))
    handler.open[1].set()
    await asyncio.sleep(0.01)
    assert handler.done == [(1, [7])]
    handler.open[0].set()
    await asyncio.sleep(0.01)
    assert handler.done[1:] == [(0, [1, 2]), (0, [3, 4])]


async def test_whoever_puts_waits_while_too_many_do() -> None:
    handler = Handler()
    lanes = Lanes(handler, 3)
    await lanes.put(take(0, 1))
    await asyncio.sleep(0)
    await lanes.put(take(0, 2, 3))
    putting = asyncio.create_task(lanes.put(take(0, 4)))
    await asyncio.sleep(0.01)
    assert not putting.done()
    handler.open[0].set()
    await asyncio.wait_for(putting, 5)
    await asyncio.sleep(0.01)
    assert [n for _, offsets in handler.done for n in offsets] == [1, 2, 3, 4]


async def test_no_more_bytes_wait_than_fit() -> None:
    handler = Handler()
    lanes = Lanes(handler, 1_000)
    await lanes.put(take(0, 0))  # is handled
    await asyncio.sleep(0)
    large = take(0, 1)
    large.size = MOST_BYTES
    full = asyncio.create_task(lanes.put(large))
    await asyncio.sleep(0.01)
    assert not full.done()
    handler.open[0].set()
    await full

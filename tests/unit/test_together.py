"""Writes that come while one is under way go into the next, and each gets its own outcome."""

from __future__ import annotations

import asyncio
import threading

import pytest

from streams.worker.together import Together


class Store:
    def __init__(self) -> None:
        self.writes: list[list[int]] = []
        self.open = threading.Event()
        self.refuses: set[int] = set()

    def write(self, items: list[int]) -> None:
        self.open.wait(10)
        self.writes.append(items)
        if self.refuses & set(items):
            raise ConnectionError(str(items))


async def test_what_waits_is_written_in_one_go() -> None:
    store = Store()
    write = Together(store.write)
    first = asyncio.create_task(write(1))
    await asyncio.sleep(0.05)
    others = [asyncio.create_task(write(n)) for n in (2, 3, 4)]
    await asyncio.sleep(0.05)
    assert not first.done()
    store.open.set()
    await asyncio.gather(first, *others)
    assert store.writes == [[1], [2, 3, 4]]
    await write(5)
    assert store.writes[-1] == [5]


async def test_a_failure_is_told_to_those_whose_write_it_was() -> None:
    store = Store()
    store.refuses = {2}
    write = Together(store.write)
    first = asyncio.create_task(write(1))
    await asyncio.sleep(0.05)
    second, third = asyncio.create_task(write(2)), asyncio.create_task(write(3))
    await asyncio.sleep(0)
    store.open.set()
    await first
    for task in (second, third):
        with pytest.raises(ConnectionError):
            await task
    await write(4)
    assert store.writes == [[1], [2, 3], [4]]


async def test_one_that_gives_up_waiting_does_not_disturb_the_others() -> None:
    store = Store()
    write = Together(store.write)
    first, second = asyncio.create_task(write(1)), asyncio.create_task(write(2))
    await asyncio.sleep(0.05)
    second.cancel()
    store.open.set()
    await first
    await asyncio.gather(second, return_exceptions=True)
    await write(3)
    assert [n for items in store.writes for n in items] == [1, 2, 3]

"""A partition's owner: made when needed, made again when lost, let go when it is another's."""

from __future__ import annotations

import asyncio

import pytest

from metering.errors import SinkUnavailable
from streams.worker import owned as owned_module
from streams.worker.owned import Owned
from streams.worker.transaction import Lost


class Desk:
    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = False

    async def close(self) -> None:
        self.closed = True


class World:
    def __init__(self) -> None:
        self.mine = {0, 1}
        self.made: list[Desk] = []
        self.away = 0
        self.may_make = asyncio.Event()
        self.may_make.set()

    async def make(self, partition: int) -> Desk:
        await self.may_make.wait()
        if self.away:
            self.away -= 1
            raise SinkUnavailable("Kafka", 0, "away")
        self.made.append(Desk(partition))
        return self.made[-1]

    def owned(self) -> Owned[Desk]:
        return Owned(self.make, self.mine.__contains__)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owned_module, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(owned_module, "RETRY_MOST_S", 0.002)


async def test_it_is_made_once_and_kept() -> None:
    world, used = World(), list[Desk]()

    async def use(desk: Desk) -> None:
        used.append(desk)

    owned = world.owned()
    assert await owned.use(1, use)
    assert await owned.use(1, use)
    assert used == [world.made[0]] * 2


@pytest.mark.parametrize("problem", [Lost("fenced"), SinkUnavailable("Kafka", 1, "away")])
async def test_what_is_lost_is_closed_made_again_and_done_again(problem: Exception) -> None:
    world, problems, used = World(), [problem], list[Desk]()

    async def use(desk: Desk) -> None:
        used.append(desk)
        if problems:
            raise problems.pop()

    world.away = 2
    assert await world.owned().use(0, use)
    assert used == world.made
    assert [desk.closed for desk in used] == [True, False]


async def test_what_is_another_workers_is_not_done_any_more() -> None:
    world, tries = World(), list[Desk]()

    async def use(desk: Desk) -> None:
        tries.append(desk)
        world.mine.discard(0)
        raise Lost("fenced")

    owned = world.owned()
    assert not await owned.use(0, use)
    assert len(tries) == 1
    assert tries[0].closed
    assert not await owned.use(0, use)
    assert len(tries) == 1


async def test_another_error_is_its_callers() -> None:
    async def use(_: Desk) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await World().owned().use(0, use)


async def test_one_at_a_time_in_a_partition_and_side_by_side_in_two() -> None:
    world, running, most = World(), set[int](), list[int]()
    gate = asyncio.Event()

    async def use(desk: Desk) -> None:
        assert desk.number not in running
        running.add(desk.number)
        most.append(len(running))
        await gate.wait()
        running.remove(desk.number)

    owned = world.owned()
    tasks = [asyncio.create_task(owned.use(n % 2, use)) for n in range(4)]
    await asyncio.sleep(0.02)
    assert owned.is_busy(0)
    gate.set()
    await asyncio.gather(*tasks)
    assert max(most) == 2
    assert not owned.is_busy(0)


async def test_what_is_not_ours_any_more_is_let_go() -> None:
    world = World()

    async def use(_: Desk) -> None:
        return

    owned = world.owned()
    await owned.use(0, use)
    await owned.use(1, use)
    world.mine.discard(1)
    await owned.let_go()
    assert [desk.closed for desk in world.made] == [False, True]
    await owned.close()
    assert all(desk.closed for desk in world.made)


@pytest.mark.parametrize("end", ["the worker ends", "the partition is another's"])
async def test_what_is_being_made_when_it_is_not_wanted_any_more_is_closed_unused(end: str) -> None:
    world, used = World(), list[Desk]()

    async def use(desk: Desk) -> None:
        used.append(desk)

    owned = world.owned()
    world.may_make.clear()
    using = asyncio.create_task(owned.use(0, use))
    await asyncio.sleep(0)
    if end == "the worker ends":
        await owned.close()
    else:
        world.mine.discard(0)
    world.may_make.set()
    assert not await using
    assert [desk.closed for desk in world.made] == [True]
    assert used == []

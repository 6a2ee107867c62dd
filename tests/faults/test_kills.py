"""Kills and outages under load, on a stack of real processes: `make faults-triton` in small."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.faults.check import look, settled
from benchmarks.faults.kills import TARGETS, carry_out, draw_kills
from benchmarks.faults.load import MODELS, Answers, load
from benchmarks.faults.outages import away
from streams.stack.config import StackConfig
from streams.stack.stack import Stack

SEED = 20
PER_SECOND = 30.0
SETTLE_S = 60.0


@dataclass
class Running:
    """The stack; what it said; and whether it gave a process up."""

    stack: Stack
    said: list[str] = field(default_factory=list)

    async def until_back(self, names: set[str]) -> None:
        """Until each of the processes that died is ready again."""
        deadline = time.monotonic() + 60
        while not all(any(f"{n}: ready again" in line for line in self.said) for n in names):
            assert time.monotonic() < deadline, self.said
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder = tmp_path_factory.mktemp("kills") / "stack"
    said: list[str] = []
    config = StackConfig(folder, models=MODELS, preferred_ports=False)
    async with Stack(config, said.append) as stack:
        yield Running(stack, said)


class Clients:
    """A load that goes on until it is told to end."""

    def __init__(self, running: Running, prefix: str) -> None:
        self._ended = False
        self._task = asyncio.create_task(
            load(
                running.stack.endpoints.triton_grpc,
                prefix,
                SEED,
                lambda _: not self._ended,
                PER_SECOND,
            )
        )

    async def end(self) -> Answers:
        self._ended = True
        return await self._task


@pytest.mark.stack
@pytest.mark.timeout(240)
async def test_services_that_find_kafka_and_clickhouse_away_wait_and_are_not_given_up(
    running: Running,
) -> None:
    stack, services = running.stack, ("shipper", "worker", "detector")
    before = stack.restarts
    clients = Clients(running, "away")
    await asyncio.sleep(1)
    async with AsyncExitStack() as outages:
        for name in ("kafka", "clickhouse"):
            await outages.enter_async_context(away(stack, name))
        running.said.clear()
        for name in services:
            stack.kill(name)
        await running.until_back(set(services))
        await asyncio.sleep(6)
    answers = await clients.end()
    assert not answers.failed
    findings, _ = await settled(stack.settings, answers, "away", SETTLE_S)
    assert findings.problems == []
    assert findings.stored == len(answers.answered) > 100
    assert {name: stack.restarts[name] - before[name] for name in services} == dict.fromkeys(
        services, 1
    )


@pytest.mark.stack
@pytest.mark.timeout(240)
async def test_every_answered_request_is_stored_once_whatever_is_killed(running: Running) -> None:
    giving_up = asyncio.create_task(running.stack.wait())
    clients = Clients(running, "kills")
    running.said.clear()
    kills = draw_kills(SEED, len(TARGETS), 0.5, 2.5)
    hit = await carry_out(running.stack, kills, running.said.append)
    await running.until_back(set(TARGETS) - {"stub"})
    await asyncio.sleep(1)
    answers = await clients.end()
    assert hit == Counter(TARGETS)
    findings, _ = await settled(running.stack.settings, answers, "kills", SETTLE_S)
    assert findings.problems == []
    assert len(answers.answered) > 50
    assert findings.stored == len(answers.answered) + findings.extra
    assert findings.extra <= len(answers.failed)
    assert not giving_up.done()
    giving_up.cancel()


async def load_for_a_second(running: Running, prefix: str) -> Answers:
    clients = Clients(running, prefix)
    await asyncio.sleep(1)
    return await clients.end()


async def until_all_is_answered(running: Running) -> None:
    """Triton may still be on its way back from a kill."""
    deadline = time.monotonic() + 60
    while (answers := await load_for_a_second(running, "back")).failed:
        assert time.monotonic() < deadline, answers.reasons


@pytest.mark.stack
async def test_the_checks_see_what_is_missing_and_what_is_there_twice(running: Running) -> None:
    """The last one with this stack: it spoils what is stored."""
    settings = running.stack.settings
    await until_all_is_answered(running)
    answers = await load_for_a_second(running, "spoilt")
    assert not answers.failed
    assert (await settled(settings, answers, "spoilt", SETTLE_S))[0].problems == []

    more = replace(answers, answered=answers.answered | {"spoilt-invented"})
    assert (await look(settings, more, "spoilt")).missing == ["spoilt-invented"]

    chosen = min(answers.answered)
    again = (
        "INSERT INTO meter.cost_request_lines SELECT * REPLACE (position + 1000 AS position) "
        f"FROM meter.cost_requests WHERE request_id = '{chosen}'"
    )
    async with (
        aiohttp.ClientSession() as session,
        session.post(settings.clickhouse, data=again) as answer,
    ):
        assert answer.status == 200, await answer.text()
    findings = await look(settings, answers, "spoilt")
    assert findings.twice == [chosen]
    assert len(findings.unconserved) == 1
    assert len(findings.windows) == 2  # 10 s and 60 s
    assert len(findings.problems) == 3


@given(st.integers(), st.integers(0, 60))
def test_every_target_is_drawn_as_often_as_any_other_and_a_seed_repeats_itself(
    seed: int, kills: int
) -> None:
    drawn = draw_kills(seed, kills, 0.5, 2.0)
    assert drawn == draw_kills(seed, kills, 0.5, 2.0)
    counts = Counter(kill.target for kill in drawn)
    assert len(drawn) == kills
    assert max(counts.values(), default=0) - min(counts[t] for t in TARGETS) <= 1
    assert all(0.5 <= kill.after_s <= 2.0 for kill in drawn)

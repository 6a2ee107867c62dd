"""Kills and outages under load, on a stack of real processes: `make faults-triton` in small."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.faults.check import settled
from benchmarks.faults.kills import TARGETS, carry_out, draw_kills
from benchmarks.faults.load import MODELS, Clients
from benchmarks.faults.outages import away
from streams.stack.config import StackConfig
from streams.stack.stack import Stack

SEED = 20
PER_SECOND = 30.0
SETTLE_S = 240.0


@dataclass
class Running:
    """The stack; what it said; and whether it gave a process up."""

    stack: Stack
    said: list[str] = field(default_factory=list)

    async def until_back(self, names: set[str]) -> None:
        """Until each of the processes that died is ready again."""
        deadline = time.monotonic() + 240
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


def clients_of(running: Running, prefix: str) -> Clients:
    return Clients(running.stack.endpoints.triton_grpc, prefix, SEED, PER_SECOND)


@pytest.mark.stack
@pytest.mark.timeout(900)
async def test_services_that_find_kafka_and_clickhouse_away_wait_and_are_not_given_up(
    running: Running,
) -> None:
    stack, services = running.stack, ("shipper", "worker", "detector")
    before = stack.restarts
    clients = clients_of(running, "away")
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
    findings, _ = await settled(stack, answers, "away", SETTLE_S)
    assert findings.problems == []
    assert findings.stored == len(answers.told) > 100
    assert {name: stack.restarts[name] - before[name] for name in services} == dict.fromkeys(
        services, 1
    )


@pytest.mark.stack
@pytest.mark.timeout(900)
async def test_every_answered_request_is_stored_once_whatever_is_killed(running: Running) -> None:
    giving_up = asyncio.create_task(running.stack.wait())
    clients = clients_of(running, "kills")
    running.said.clear()
    kills = draw_kills(SEED, len(TARGETS), 0.5, 2.5)
    hit = await carry_out(running.stack, kills, running.said.append)
    await running.until_back(set(TARGETS) - {"stub"})
    await asyncio.sleep(1)
    answers = await clients.end()
    assert hit == Counter(TARGETS)
    findings, _ = await settled(running.stack, answers, "kills", SETTLE_S)
    assert findings.problems == []
    assert len(answers.told) > 50
    assert findings.stored == len(answers.told) + findings.extra
    assert findings.extra <= len(answers.failed)
    assert not giving_up.done()
    giving_up.cancel()


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

"""Kills at random moments: drawn from a seed, then carried out on the processes themselves."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from streams.stack.groups import members
from streams.stack.services import SERVICES
from streams.stack.stack import Stack
from streams.stack.stubs import read_stub

STUB = "stub"
TARGETS = (STUB, "triton", *(service.name for service in SERVICES), "clickhouse", "kafka")
"""A model's process, the server, each of the project's own services, the store, the broker."""
_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Kill:
    """``after_s`` counts from the kill before it."""

    target: str
    after_s: float


def draw_kills(seed: int, kills: int, shortest_s: float, longest_s: float) -> list[Kill]:
    """Targets come up equally often, in an order of chance; the pauses are uniform."""
    drawn = random.Random(seed)
    targets: list[str] = []
    while len(targets) < kills:
        targets += drawn.sample(TARGETS, len(TARGETS))
    return [Kill(target, drawn.uniform(shortest_s, longest_s)) for target in targets[:kills]]


async def carry_out(stack: Stack, kills: list[Kill], say: Callable[[str], None]) -> Counter[str]:
    """Each kill hits one process with SIGKILL, whatever it is at just then, its own start too.

    The signal does not go through the stack: to its supervisor it is a death like any other.
    Returns how often each target was hit.
    """
    hit: Counter[str] = Counter()
    for number, kill in enumerate(kills, 1):
        await asyncio.sleep(kill.after_s)
        pid = await _kill(stack, kill.target, random.Random(number))
        hit[kill.target] += 1
        say(f"kill {number}/{len(kills)}: {kill.target} (pid {pid})")
    return hit


async def _kill(stack: Stack, target: str, drawn: random.Random) -> int:
    while True:
        pids = _stubs(stack) if target == STUB else [stack.endpoints.pids.get(target)]
        pid = drawn.choice(pids) if pids else None
        if pid is not None:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            else:
                return pid
        await asyncio.sleep(_POLL_S)


def _stubs(stack: Stack) -> list[int]:
    """The Python processes of the models' instances, in the order of their start."""
    server = stack.endpoints.pids.get("triton")
    if server is None:
        return []
    return sorted(line.pid for line in members(server) if read_stub(line.pid) is not None)

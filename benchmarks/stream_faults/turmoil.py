"""Kills and rebalances: drawn from a seed, each at a place of its own in what is emitted."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.stream_faults.crew import Crew
from benchmarks.stream_faults.emission import Emission, Throttle
from benchmarks.stream_faults.world import BATCH_SIZE
from metering.errors import StackError
from streams.stack.stack import Stack

TARGETS = ("worker", "worker", "shipper", "clickhouse", "kafka")
"""Of five kills two hit a worker."""
CHANGES = ("grow", "grow", "roll", "shrink", "grow", "shrink by kill", "roll", "shrink")
"""From one worker to three and back, over and over. Rolled: the first worker ends by SIGTERM and is
begun anew."""
GROUPS_OF_CHANGES = 16
EXTRA = ("worker-2", "worker-3")
PROGRESS_WITHIN_S = 30.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Kill:
    """``at`` is the share of its stretch that is emitted first. With ``waits`` something must have
    been stored since the kill before; without, it may hit who still recovers."""

    target: str
    at: float
    waits: bool
    change: str | None = None


def draw_kills(seed: int, kills: int, calm: float) -> list[Kill]:
    """``calm`` is the share of those that wait."""
    drawn = random.Random(seed)
    targets: list[str] = []
    while len(targets) < kills:
        targets += drawn.sample(TARGETS, len(TARGETS))
    every = max(1, kills // GROUPS_OF_CHANGES)
    changes = [CHANGES[n // every % len(CHANGES)] if n % every == 0 else None for n in range(kills)]
    return [
        Kill(target, drawn.random(), drawn.random() < calm, change)
        for target, change in zip(targets[:kills], changes, strict=True)
    ]


@dataclass(slots=True)
class Turmoil:
    """``hit`` and ``changed`` count what was done."""

    stack: Stack
    crew: Crew
    emission: Emission
    throttle: Throttle
    say: Callable[[str], None]
    seed: int
    hit: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    without_progress: int = 0

    async def run(self, kills: list[Kill]) -> None:
        """The load is divided into one stretch more than there are kills; a stretch is emitted once
        the kill of the one before is done."""
        drawn = random.Random(self.seed)
        stretch = self.emission.requests / (len(kills) + 1)
        for number, kill in enumerate(kills):
            self.throttle.allowed = int(stretch * (number + 1))
            stored = self.throttle.stored
            await self._emitted(stretch * (number + kill.at))
            if kill.waits:
                await self._progress(stored)
            if kill.change is not None:
                await self._change(kill.change)
            name, pid = await self._kill(kill.target, drawn)
            self.hit[kill.target] += 1
            self.say(
                f"kill {number + 1}/{len(kills)}: {name} (pid {pid}) at "
                f"{self.emission.emitted:,} emitted, {self.throttle.stored:,} stored"
            )
        self.throttle.allowed = self.emission.requests

    async def _emitted(self, requests: float) -> None:
        while self.emission.emitted < requests - BATCH_SIZE:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(_POLL_S)

    async def _progress(self, stored: int) -> None:
        deadline = time.monotonic() + PROGRESS_WITHIN_S
        while self.throttle.stored <= stored:
            if time.monotonic() > deadline:
                self.without_progress += 1
                return
            await asyncio.sleep(_POLL_S)

    async def _kill(self, target: str, drawn: random.Random) -> tuple[str, int]:
        while True:
            name = target
            if target == "worker":
                name = drawn.choice(["worker", *self.crew.names])
            if name in self.crew.names:
                pid = self.crew.kill(name)
                if pid is not None:
                    return name, pid
            else:
                try:
                    return name, self.stack.kill(name)
                except StackError:
                    pass  # Not there just now.
            await asyncio.sleep(_POLL_S)

    async def _change(self, change: str) -> None:
        there = self.crew.names
        if change == "grow" and len(there) < len(EXTRA):
            await self.crew.add(next(name for name in EXTRA if name not in there))
        elif change.startswith("shrink") and there:
            sig = signal.SIGKILL if change.endswith("kill") else signal.SIGTERM
            await self.crew.remove(there[-1], sig)
        elif change == "roll":
            try:
                self.stack.kill("worker", signal.SIGTERM)
            except StackError:
                return
        else:
            return
        self.changed[change] += 1
        self.say(f"{change}: {1 + len(self.crew.names)} workers")

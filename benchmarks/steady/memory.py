"""The worker's memory while a load goes on, sample by sample."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp

from benchmarks.steady.process import SenderProcess, memory_of
from benchmarks.steady.sender import Load
from benchmarks.steady.trend import last_part, sparkline, trend_of
from metering.errors import MeteringError
from streams.stack.stack import Stack

BATCH_SIZE = 32
SEQUENCES = 10**9
"""That a load may need of a source: the next one begins behind them."""
CATCH_UP_S = 30
MIB = 2**20
_BATCHES = re.compile(r"^meter_batches_total(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


@dataclass(slots=True)
class Samples:
    """``seconds`` are since the load's begin."""

    seconds: list[float] = field(default_factory=list)
    bytes: list[float] = field(default_factory=list)
    anonymous: list[float] = field(default_factory=list)

    def add(self, seconds: float, of: tuple[int, int]) -> None:
        self.seconds.append(seconds)
        self.bytes.append(of[0])
        self.anonymous.append(of[1])

    def change(self, last_s: float) -> float:
        """In the last seconds, as a part of the mean: near 0 where it has settled."""
        return trend_of(*self._last(last_s)).change

    def level(self, last_s: float) -> float:
        """The median of the last seconds."""
        return median(self._last(last_s)[1])

    def _last(self, last_s: float) -> tuple[list[float], list[float]]:
        return last_part(self.seconds, self.bytes, from_s=self.seconds[-1] - last_s)

    def drawn(self) -> str:
        low, high = min(self.bytes) / MIB, max(self.bytes) / MIB
        return f"{low:,.0f} MiB {sparkline(self.bytes)} {high:,.0f} MiB"


@dataclass(frozen=True, slots=True)
class Course:
    """``behind`` messages were not yet counted when the worker had had time to."""

    samples: Samples
    sent: int
    behind: int


async def course(
    stack: Stack,
    load: Load,
    *,
    every_s: float,
    say: Callable[[str], None],
) -> Course:
    """The load from its begin to its end.

    Raises:
        MeteringError: the worker or the sender has ended.
    """
    pid = stack.endpoints.pids["worker"]
    counted = await batches(stack)
    sender = SenderProcess(load, stack.settings, stack.endpoints.folder)
    samples = Samples()
    try:
        await sender.start()
        begun_s = time.monotonic()
        told_s = 0.0
        while not samples.seconds or samples.seconds[-1] < load.seconds:
            await asyncio.sleep(every_s)
            sender.check()
            samples.add(time.monotonic() - begun_s, memory_of(pid))
            if samples.seconds[-1] - told_s >= 60:
                told_s = samples.seconds[-1]
                say(f"{told_s:,.0f} s: {samples.drawn()}")
        sent = await sender.finished()
    finally:
        await sender.kill()
    behind = counted + sent - await batches(stack)
    for _ in range(CATCH_UP_S):
        if behind <= 0:
            break
        await asyncio.sleep(1)
        behind = counted + sent - await batches(stack)
    if stack.endpoints.pids.get("worker") != pid:
        raise MeteringError("the worker was started anew: its memory is another's")
    return Course(samples, sent, max(0, behind))


async def batches(stack: Stack) -> int:
    """That the worker says it has counted."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(stack.endpoints.metrics["worker"]) as answer,
    ):
        return int(sum(float(value) for value in _BATCHES.findall(await answer.text())))


def write_samples(path: Path, parts: dict[str, Samples]) -> None:
    """As CSV, for whoever wants to draw them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ["part,seconds,rss_bytes,anonymous_bytes"]
    for name, samples in parts.items():
        columns = zip(samples.seconds, samples.bytes, samples.anonymous, strict=True)
        rows += [f"{name},{at_s:.1f},{rss:.0f},{own:.0f}" for at_s, rss, own in columns]
    path.write_text("\n".join(rows) + "\n")

"""One side at work, seen from outside: how far it says that it is, and the kernel's clock of its
CPU time. What happens before the first word and after the last is left out."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stream.progress import Asked
from benchmarks.stream.sides import Start
from metering.errors import MeteringError
from streams.stack.child import spawn_leashed, tail
from streams.stack.groups import kill_group

FIRST_WITHIN_S = 90.0
STALLED_S = 60.0
STOP_S = 20.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The moment at which a side was seen to be further than before."""

    requests: int
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Rate:
    """From the first sample to the last."""

    requests: int
    wall_s: float
    cpu_s: float

    @property
    def per_core(self) -> float:
        return self.requests / self.cpu_s

    @property
    def per_s(self) -> float:
        return self.requests / self.wall_s


def rate_of(samples: list[Sample], end: int) -> Rate:
    """The last sample of a side that has come to the topic's end is left out where others are left:
    it may have waited before it told.

    Raises:
        MeteringError: fewer than two samples.
    """
    if len(samples) > 2 and samples[-1].requests >= end:
        samples = samples[:-1]
    if len(samples) < 2:
        raise MeteringError("it was at the topic's end at once: a longer topic is needed")
    first, last = samples[0], samples[-1]
    return Rate(
        last.requests - first.requests, last.wall_s - first.wall_s, last.cpu_s - first.cpu_s
    )


async def measure(
    start: Start,
    asked: Asked,
    *,
    seconds: float,
    cores: Collection[int],
    say: Callable[[str], None],
) -> Rate:
    """Starts the side on ``cores``, lets it read for ``seconds`` behind its first word or to the
    topic's end, and ends it.

    Raises:
        MeteringError: it ended by itself, or tells of nothing for long.
    """
    await start.prepare()
    end = await asked.in_topic()
    process = await begin(start, cores)
    try:
        samples = await _watch(start, process, asked, end, seconds)
    except MeteringError as exc:
        raise with_log(start, exc) from exc
    finally:
        await stop(process)
        await start.clean()
    rate = rate_of(samples, end)
    say(
        f"{start.name}: {rate.per_core:,.0f} requests per core and second, "
        f"{rate.per_s:,.0f} per second ({rate.requests:,} in {rate.wall_s:.1f} s)"
    )
    return rate


async def begin(start: Start, cores: Collection[int]) -> asyncio.subprocess.Process:
    process = await spawn_leashed(start.argv, start.env, start.folder, _log(start))
    os.sched_setaffinity(process.pid, cores)
    return process


def with_log(start: Start, exc: MeteringError) -> MeteringError:
    shown = "".join(f"\n    {line}" for line in tail(_log(start)))
    return MeteringError(f"{start.name}: {exc}; its log ends:{shown}")


def _log(start: Start) -> Path:
    return start.folder / "log"


async def _watch(
    start: Start, process: asyncio.subprocess.Process, asked: Asked, end: int, seconds: float
) -> list[Sample]:
    samples: list[Sample] = []
    deadline = time.monotonic() + FIRST_WITHIN_S
    while True:
        done = await start.how_far(asked)
        now_s = time.monotonic()
        if process.returncode is not None:
            raise MeteringError(f"ended by itself with exit code {process.returncode}")
        if done > (samples[-1].requests if samples else 0):
            samples.append(Sample(done, now_s, cpu_s(process.pid)))
            deadline = now_s + STALLED_S
        if now_s > deadline:
            raise MeteringError(f"tells of nothing more at {done:,} of {end:,} requests")
        if samples and (done >= end or _long_enough(samples, seconds)):
            return samples
        await asyncio.sleep(start.ask_every_s)


def _long_enough(samples: list[Sample], seconds: float) -> bool:
    return len(samples) > 2 and samples[-1].wall_s - samples[0].wall_s >= seconds


def cpu_s(pid: int) -> float:
    """Of all threads of another process, to the nanosecond: clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)


async def stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_S)
    kill_group(process.pid)
    await process.wait()

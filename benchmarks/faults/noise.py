"""How much of the machine others take meanwhile: what a comparison of latencies is worth."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from streams.stack.stack import Stack

_EVERY_S = 0.5
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Strangers:
    """Samples, until it is closed, the CPU that neither the stack nor this process takes."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._samples: list[tuple[float, float]] = []
        self._task = asyncio.create_task(self._run())

    def cores(self, stretches: Sequence[tuple[float, float]]) -> float:
        """The mean number of cores that strangers kept busy in these stretches of time."""
        found = [
            cores
            for at, cores in self._samples
            if any(begin <= at < end for begin, end in stretches)
        ]
        return sum(found) / len(found) if found else 0.0

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        before, busy_before, at_before = self._own(), _busy_ticks(), time.monotonic()
        while True:
            await asyncio.sleep(_EVERY_S)
            own, busy, now = self._own(), _busy_ticks(), time.monotonic()
            ours = sum(ticks - before.get(pid, 0) for pid, ticks in own.items())
            theirs = max(0, busy - busy_before - ours)
            self._samples.append((now, theirs / _TICKS_PER_S / (now - at_before)))
            before, busy_before, at_before = own, busy, now

    def _own(self) -> dict[int, int]:
        return ticks_of({os.getpgrp(), *self._stack.endpoints.pids.values()})


def ticks_of(groups: Collection[int]) -> dict[int, int]:
    """CPU ticks of each living process in these process groups, by its pid."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # It has just ended.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) in groups:
                found[int(entry.name)] = int(fields[11]) + int(fields[12])
    return found


def _busy_ticks() -> int:
    """All but idle and waiting for a disk; guests are in user time already."""
    user, nice, system, _, _, irq, soft, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return user + nice + system + irq + soft + steal

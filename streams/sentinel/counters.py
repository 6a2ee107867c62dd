"""Triton's counters with what makes them comparable: when they were taken, and of which server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from metering.capacity import ModelCounters
from streams.sentinel.boots import Boot, living_boots

Ask = Callable[[], Awaitable[tuple[ModelCounters, ...]]]


@dataclass(frozen=True, slots=True)
class Counters:
    """Taken after ``time_ns`` and before ``asked_ns`` (epoch). ``boot`` is ``None`` where more
    than one server lives on this host, or none that is metered, or where they have just changed;
    ``living`` says how many."""

    time_ns: int
    asked_ns: int
    boot: Boot | None
    living: int
    models: tuple[ModelCounters, ...]


async def ask_counters(log_dir: Path, ask: Ask) -> Counters:
    """A server is named if it alone lived before and after it was asked.

    Raises:
        MeteringError: Triton does not answer.
    """
    before = await asyncio.to_thread(living_boots, log_dir)
    time_ns = time.time_ns()
    models = await ask()
    asked_ns = max(time_ns, time.time_ns())
    after = await asyncio.to_thread(living_boots, log_dir)
    boot = next(iter(after)) if before == after and len(after) == 1 else None
    return Counters(time_ns, asked_ns, boot, len(before | after), models)

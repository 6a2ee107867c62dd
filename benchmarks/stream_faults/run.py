"""One run: emit under kills and rebalances until all is stored, and compare."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import Say
from benchmarks.stream_faults.compare import Findings, compare
from benchmarks.stream_faults.crew import Crew
from benchmarks.stream_faults.emission import Emission, Throttle
from benchmarks.stream_faults.injector import Injector
from benchmarks.stream_faults.journal import Journal
from benchmarks.stream_faults.mischief import Mischief
from benchmarks.stream_faults.turmoil import Turmoil, draw_kills
from metering.errors import MeteringError
from sinks.clickhouse.queries import ClickHouseReader
from streams.publisher import Record
from streams.stack.stack import Stack
from streams.targets import clickhouse_target

POLL_S = 0.5
TELL_EVERY_S = 5.0
STUCK_AFTER_S = 180.0
BEHIND_S = 20.0
"""So many seconds' worth of requests may be emitted and not stored."""
_JOINED = re.compile(rb"Joined group (\S+) \(generation (\d+)\)")
_BUG = re.compile(rb"this is a bug; the worker ends.*(?:\n(?!\d{4}-).*){0,60}")
"""With what it met, up to the next line that has a time."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """``per_s`` is the pace while nothing is in the way; ``calm`` the share of kills before which
    something was stored since the last one. With ``waits`` the last windows are waited for until
    they must be final."""

    requests: int
    kills: int
    boots: int
    per_s: float
    calm: float
    waits: bool


@dataclass(frozen=True, slots=True)
class Course:
    """What was done. ``all_stored``: as many lines as were emitted were seen before time was up;
    ``stubborn``: workers that did not end by SIGTERM in time."""

    hit: Counter[str]
    changed: Counter[str]
    restarts: dict[str, int]
    rebalances: int
    bugs: int
    without_progress: int
    stubborn: int
    emitted: int
    late: int
    lagging: int
    again: int
    boots: int
    load_s: float
    stored_s: float
    all_stored: bool


async def go_through(
    stack: Stack, sizes: Sizes, seed: int, change_s: int, say: Say
) -> tuple[Course, Findings]:
    """The stack has a worker and a shipper, and nothing on its topics."""
    folder = stack.endpoints.folder
    journal = Journal(folder / "journal", change_s)
    mischief: Mischief[Record] = Mischief(random.Random(seed))
    emission = Emission(
        requests=sizes.requests,
        boots=sizes.boots,
        seed=seed,
        log_dir=stack.settings.log_dir,
        journal=journal,
        mischief=mischief,
    )
    throttle = Throttle(sizes.per_s, int(sizes.per_s * BEHIND_S))
    injector = Injector(stack.settings, mischief)
    crew = Crew(stack.settings, folder / "logs", say)
    turmoil = Turmoil(stack, crew, emission, throttle, say, seed)
    begun = time.monotonic()
    watching = asyncio.create_task(_watch(stack, emission, throttle, say))
    try:
        injecting = asyncio.create_task(injector.run())
        try:
            await _together(
                injecting,
                throttle.run(emission),
                turmoil.run(draw_kills(seed, sizes.kills, sizes.calm)),
            )
            injector.end()
            await injecting
        finally:
            injecting.cancel()
        emission.close()
        journal.close()
        load_s = time.monotonic() - begun
        say(f"all {emission.emitted:,} requests are emitted; catching up")
        all_stored = await _all_stored(stack, emission.requests, say)
        stored_s = time.monotonic() - begun
        await _ended(watching)
        bugs = [str(bug, errors="replace") for bug in _said(folder / "logs", _BUG)]
        for bug in bugs:
            say(bug)
        course = Course(
            hit=turmoil.hit,
            changed=turmoil.changed,
            restarts={**stack.restarts, "further workers": crew.restarts},
            rebalances=len(set(_said(folder / "logs", _JOINED))),
            bugs=len(bugs),
            without_progress=turmoil.without_progress,
            stubborn=crew.stubborn,
            emitted=emission.emitted,
            late=emission.late,
            lagging=emission.lagging,
            again=mischief.again,
            boots=emission.boots,
            load_s=load_s,
            stored_s=stored_s,
            all_stored=all_stored,
        )
        return course, await compare(stack, folder / "journal", sizes.waits, say)
    finally:
        await _ended(watching)
        await crew.stop()


async def _together(injecting: asyncio.Task[None], *others: object) -> None:
    """Until the others are done; an error of any ends all."""
    tasks = {asyncio.ensure_future(other) for other in others}  # type: ignore[call-overload]
    left = set(tasks)
    try:
        while left:
            done, _ = await asyncio.wait({*left, injecting}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            left -= done
    finally:
        for task in tasks:
            task.cancel()


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _watch(stack: Stack, emission: Emission, throttle: Throttle, say: Say) -> None:
    """Tells the throttle how much is stored; lines that were written twice count twice until they
    are merged."""
    told = time.monotonic()
    while True:
        await asyncio.sleep(POLL_S)
        with suppress(MeteringError):
            throttle.stored = await asyncio.to_thread(
                _count, stack, "SELECT count() FROM cost_request_lines"
            )
        if time.monotonic() - told > TELL_EVERY_S:
            told = time.monotonic()
            say(
                f"{emission.emitted:,} of {emission.requests:,} emitted, "
                f"{throttle.stored:,} rows written"
            )


def _count(stack: Stack, sql: str) -> int:
    reader = ClickHouseReader(clickhouse_target(stack.settings))
    try:
        return int(reader.rows(sql)[0][0])
    finally:
        reader.close()


async def _all_stored(stack: Stack, requests: int, say: Say) -> bool:
    last, moved = -1, time.monotonic()
    while True:
        with suppress(MeteringError):
            stored = await asyncio.to_thread(_count, stack, "SELECT count() FROM cost_requests")
            if stored >= requests:
                return True
            if stored != last:
                last, moved = stored, time.monotonic()
        if time.monotonic() - moved > STUCK_AFTER_S:
            say(f"stuck: {last:,} of {requests:,} are stored")
            return False
        await asyncio.sleep(2 * POLL_S)


def _said(logs: Path, what: re.Pattern[bytes]) -> list[Any]:
    """By any worker."""
    return [found for path in logs.glob("worker*.log") for found in what.findall(path.read_bytes())]

"""What is left, once it has settled, against what is reckoned from the journal."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Say
from benchmarks.stream_faults.expected import Expected, Sums, Window, expect, windows
from benchmarks.stream_faults.journal import read
from benchmarks.stream_faults.letters import Letters, read_letters
from benchmarks.stream_faults.lines import Lines, check_lines
from benchmarks.stream_faults.published_lines import Published, read_lines
from benchmarks.stream_faults.published_windows import apart, behind, read_latest_windows
from benchmarks.stream_faults.stored_windows import (
    CLOSED_AFTER_S,
    Row,
    Windows,
    check_windows,
    lengths,
    read_windows,
)
from benchmarks.stream_faults.world import NS
from sinks.clickhouse.queries import ClickHouseReader
from streams.stack.stack import Stack
from streams.targets import clickhouse_target

SETTLE_S = 60.0
POLL_S = 2.0


@dataclass(frozen=True, slots=True)
class Findings:
    """``rows`` are those of ``cost.windows.v1``; ``apart`` and ``behind`` compare the latest of
    each window with ClickHouse's."""

    lines: Lines
    windows: Windows
    expected_windows: int
    published: Published
    letters: Letters
    rows: int
    apart: list[str]
    behind: int
    took_s: float


async def compare(stack: Stack, journal: Path, waits: bool, say: Say) -> Findings:
    """With ``waits`` once the last window of a minute must be final.

    Raises:
        QueryFailed, KafkaError: ClickHouse or the broker does not answer.
    """
    begun = time.monotonic()
    say("reckoning what must be there")
    expected = await asyncio.to_thread(expect, read(journal))
    found, wanted = await _settled(stack, expected, waits, say)
    say("comparing lines")
    lines = await asyncio.to_thread(_check_lines, stack, expected)
    say("reading the topics")
    published = await read_lines(stack.settings, expected)
    letters = await read_letters(stack.settings, expected)
    latest, rows = await read_latest_windows(stack.settings)
    stored = dict(await asyncio.to_thread(_read_windows, stack))
    return Findings(
        lines=lines,
        windows=found,
        expected_windows=wanted,
        published=published,
        letters=letters,
        rows=rows,
        apart=apart(latest, stored),
        behind=behind(latest, stored),
        took_s=time.monotonic() - begun,
    )


async def _settled(stack: Stack, expected: Expected, waits: bool, say: Say) -> tuple[Windows, int]:
    """Windows as they are once they are right, or when time is up."""
    wanted: dict[int, dict[Window, Sums]] = {}
    last_s = int(expected.emitted.batches["end_ns"].max()) // NS
    all_closed_s = (last_s // 60 + 1) * 60 + CLOSED_AFTER_S + 1 if waits else 0
    deadline = max(all_closed_s, time.time()) + SETTLE_S
    say(f"comparing windows{', once the last must be final' if waits else ''}")
    while True:
        rows = await asyncio.to_thread(_read_windows, stack)
        for seconds in lengths(rows):
            if seconds not in wanted:
                wanted[seconds] = await asyncio.to_thread(windows, expected, seconds)
        every = {key: sums for of in wanted.values() for key, sums in of.items()}
        found = check_windows(rows, every, time.time())
        now = time.time()
        if (found.is_right and now > all_closed_s) or now > deadline:
            return found, len(every)
        await asyncio.sleep(POLL_S)


def _read_windows(stack: Stack) -> list[tuple[Window, Row]]:
    reader = ClickHouseReader(clickhouse_target(stack.settings))
    try:
        return read_windows(reader)
    finally:
        reader.close()


def _check_lines(stack: Stack, expected: Expected) -> Lines:
    reader = ClickHouseReader(clickhouse_target(stack.settings))
    try:
        return check_lines(reader, expected)
    finally:
        reader.close()

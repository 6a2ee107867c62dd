"""How long a worker takes to find its windows again: ``make bench-recovery``, or with ``QUICK=1``.

10^6 sums (a window of a cohort each) are saved to one partition as a worker saves them, in
transactions, each of them twice, so that there is something to pass over as well. Then what a new
owner does is timed: it takes over the partition's transactions, reads what is stored to its end,
and makes totals of it. They are compared with what was saved.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Sequence

import numpy as np
from aiokafka import TopicPartition

from benchmarks.report import Figure, Narrator, Say, end, none_of, show
from benchmarks.steady.own_stack import own_stack
from metering.additions import TALLY
from metering.totals import Totals
from metering.totals_records import changed_records, totals_of
from metering.window_sums import WindowSums
from metering.windows import Cohort, WindowKey
from streams.publisher import Record
from streams.settings import Settings
from streams.stack.places import REPO
from streams.topics import COST_WINDOWS, TOTALS
from streams.worker.stored_state import read_state
from streams.worker.transaction import Transactions

RESULTS = REPO / "build" / "results" / "bench_recovery.json"
COHORTS = 20_000
SAVED_TOGETHER = 1_000
"""Records in a transaction: of 64 cohorts each."""
PARTITION = 0
NAME = f"bench-recovery/{PARTITION}"
TIMES = 3


def made(keys: int, seed: int) -> Totals:
    """Windows of 10 s, all of all cohorts."""
    drawn = np.random.default_rng(seed)
    cohorts: list[Cohort] = [
        (f"tenant-{n % 400}", f"model-{n // 400 % 10}", f"region-{n // 4000}")
        for n in range(min(COHORTS, keys))
    ]
    totals = Totals(counted_to=0)
    for number in range(keys // len(cohorts)):
        window = totals.windows[WindowKey(1_780_000_000 + 10 * number, 10)] = WindowSums()
        words = drawn.integers(0, 10**9, (len(cohorts), len(TALLY), 2), np.int64)
        window.add(cohorts, words)
    return totals


async def begun(settings: Settings) -> Transactions:
    transactions = Transactions(settings, NAME, TopicPartition(TOTALS, PARTITION), (COST_WINDOWS,))
    await transactions.start()
    return transactions


async def save(settings: Settings, totals: Totals, say: Say) -> None:
    records = [Record(TOTALS, key, value, [], PARTITION) for key, value in changed_records(totals)]
    transactions = await begun(settings)
    try:
        for turn in range(2):
            for first in range(0, len(records), SAVED_TOGETHER):
                await transactions.commit(records[first : first + SAVED_TOGETHER])
            say(f"saved {turn + 1} of 2 times")
    finally:
        await transactions.stop()


async def recover(settings: Settings) -> tuple[Totals, float]:
    """And how many seconds it took."""
    started = time.monotonic()
    transactions = await begun(settings)
    try:
        totals = totals_of(await read_state(settings, TOTALS, PARTITION))
        return totals, time.monotonic() - started
    finally:
        await transactions.stop()


def differing(found: Totals, saved: Totals) -> int:
    """Windows that are not what was saved."""
    return len(found.windows.keys() ^ saved.windows.keys()) + sum(
        found.windows[key].cohorts != window.cohorts or not _equal(found.windows[key], window)
        for key, window in saved.windows.items()
        if key in found.windows
    )


def _equal(one: WindowSums, other: WindowSums) -> bool:
    rows: Sequence[int] = range(len(other.cohorts))
    return one.sums(rows) == other.sums(rows)


async def run(keys: int, say: Say) -> dict[str, Figure]:
    saved = made(keys, seed=1)
    async with own_stack(say, only=("topics",)) as stack:
        await save(stack.settings, saved, say)
        took, wrong = [], 0
        for turn in range(TIMES):
            found, seconds = await recover(stack.settings)
            took.append(seconds)
            wrong += differing(found, saved)
            say(f"found again in {seconds:.1f} s ({turn + 1} of {TIMES})")
    median = statistics.median(took)
    spread = f"{min(took):.1f}-{max(took):.1f}"
    return {
        "keys": Figure(sum(len(w.cohorts) for w in saved.windows.values()), "windows of cohorts"),
        "recovery": Figure(round(median, 1), "s", "≤ 30", median <= 30, spread),
        "wrong": none_of(wrong, "windows"),
    }


def main() -> None:
    keys = 100_000 if os.environ.get("QUICK") == "1" else 1_000_000
    say = Narrator()
    figures = asyncio.run(run(keys, say))
    show(f"{keys:,} sums of one partition", figures)
    end(RESULTS, figures)


if __name__ == "__main__":
    main()

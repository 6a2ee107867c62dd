"""What a second worker costs: CPU time for the same pre-filled topic, by one worker and by two.
``make bench-workers``, or with ``QUICK=1``.

In each round both read the whole topic, all workers on the same core. A worker's CPU time counts
from the moment at which it first says how far it is, so that starting up is not in it; taking
partitions over and handing them on is.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.report import Figure, Narrator, Say, end, show
from benchmarks.stream.filling import filled
from benchmarks.stream.measure import begin, cpu_s, stop, with_log
from benchmarks.stream.progress import Asked
from benchmarks.stream.sides import WORKER, Start, forget_workers, start_of
from metering.errors import MeteringError
from streams.settings import Settings
from streams.stack.places import REPO
from streams.topics import USAGE_PARTITIONS

RESULTS = REPO / "build" / "results" / "bench_workers.json"
BATCH_SIZE = 32
STALLED_S = 120.0
MOST = 1.1


@dataclass(frozen=True, slots=True)
class Sizes:
    rounds: int
    requests: int


FULL = Sizes(rounds=5, requests=2_000_000)
QUICK = Sizes(rounds=1, requests=640_000)


@dataclass(slots=True)
class Working:
    """A worker: how far it was, and its CPU time then, at its first word and at the last."""

    start: Start
    process: asyncio.subprocess.Process
    seen: list[tuple[int, float]] = field(default_factory=list)

    async def look(self, asked: Asked) -> int:
        done = await self.start.how_far(asked)
        if self.process.returncode is not None:
            raise MeteringError(f"ended by itself with exit code {self.process.returncode}")
        if done:
            self.seen[1:] = [(done, cpu_s(self.process.pid))]
        return done


async def cpu_per_million(
    workers: int, run: str, settings: Settings, asked: Asked, cores: set[int]
) -> tuple[float, list[int]]:
    """CPU seconds for a million requests by so many workers; and what each of them did."""
    await forget_workers(settings, USAGE_PARTITIONS)
    end = await asked.in_topic()
    folder = settings.state_dir / "bench"
    starts = [
        start_of(WORKER, f"{run}-{n}", settings, folder, f"bench_{run}") for n in range(workers)
    ]
    working = [Working(start, await begin(start, cores)) for start in starts]
    try:
        await _until_done(working, asked, end)
    except MeteringError as exc:
        raise with_log(working[0].start, exc) from exc
    finally:
        for worker in working:
            await stop(worker.process)
        await starts[0].clean()
    spent = sum(worker.seen[-1][1] - worker.seen[0][1] for worker in working if worker.seen)
    counted = sum(worker.seen[-1][0] - worker.seen[0][0] for worker in working if worker.seen)
    return spent / counted * 10**6, [w.seen[-1][0] if w.seen else 0 for w in working]


async def _until_done(working: Sequence[Working], asked: Asked, end: int) -> None:
    most, deadline = 0, time.monotonic() + STALLED_S
    while True:
        done = sum([await worker.look(asked) for worker in working])
        if done >= end:
            return
        if done > most:
            most, deadline = done, time.monotonic() + STALLED_S
        if time.monotonic() > deadline:
            raise MeteringError(f"tells of nothing more at {done:,} of {end:,} requests")
        await asyncio.sleep(0.25)


async def run(sizes: Sizes, seed: int, say: Say) -> dict[str, Figure]:
    spent: dict[int, list[float]] = {1: [], 2: []}
    shares: list[float] = []
    topic = filled(sizes.requests, BATCH_SIZE, USAGE_PARTITIONS, seed, say)
    async with topic as (settings, asked, own):
        for number in range(sizes.rounds):
            for workers in (1, 2) if number % 2 == 0 else (2, 1):
                name = f"{number}_{workers}"
                cpu, done = await cpu_per_million(workers, name, settings, asked, own)
                spent[workers].append(cpu)
                if workers > 1:
                    shares.append(min(done) / sum(done))
                told = " and ".join(f"{d:,}" for d in done)
                say(f"{workers} worker(s): {cpu:.2f} CPU s for a million; {told} requests")
    return figures_of(spent, shares)


def figures_of(spent: dict[int, list[float]], shares: list[float]) -> dict[str, Figure]:
    figures = {
        f"cpu_{workers}_workers": Figure(
            round(median(own), 2), "CPU s/10^6", spread=f"{min(own):.2f} to {max(own):.2f}"
        )
        for workers, own in spent.items()
    }
    ratios = [two / one for one, two in zip(spent[1], spent[2], strict=True)]
    middle = median(ratios)
    figures["two_per_one"] = Figure(
        round(middle, 3),
        "×",
        f"≤ {MOST}",
        middle <= MOST,
        f"{min(ratios):.3f} to {max(ratios):.3f}",
    )
    figures["smaller_share"] = Figure(round(min(shares), 3), "of the requests")
    return figures


def main() -> None:
    sizes = QUICK if os.environ.get("QUICK") == "1" else FULL
    say = Narrator()
    figures = asyncio.run(run(sizes, int(os.environ.get("SEED", "1")), say))
    figures["took"] = say.took()
    show("the same topic by one worker and by two", figures)
    end(RESULTS, figures)


if __name__ == "__main__":
    main()

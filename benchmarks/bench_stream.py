"""What the stream processor does per core, beside what it could at most and what others do:
``make bench-stream``, or with ``QUICK=1``.

One pre-filled topic on the real Kafka; in each round every side reads it from its start, in a
process of its own on the same core, for as long as the others. First batches of 32 requests, then
of 1.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report import Figure, Narrator, Say, end, show
from benchmarks.stream.figures import Ratio, figures_of
from benchmarks.stream.filling import filled
from benchmarks.stream.measure import Rate, measure
from benchmarks.stream.progress import Asked
from benchmarks.stream.sides import BARE, FAUST, QUIX, SIDES, WORKER, start_of
from streams.settings import Settings
from streams.stack.places import REPO

RESULTS = REPO / "build" / "results" / "bench_stream.json"


@dataclass(frozen=True, slots=True)
class Table:
    """Sides on a topic whose batches have one size, and what is claimed of them."""

    batch_size: int
    requests: int
    sides: Sequence[str]
    ratios: Sequence[Ratio]


@dataclass(frozen=True, slots=True)
class Sizes:
    """``seconds`` are from a side's first word on, or less where it comes to the topic's end."""

    rounds: int
    seconds: float
    batched: int
    single: int


FULL = Sizes(rounds=5, seconds=12.0, batched=2_000_000, single=400_000)
QUICK = Sizes(rounds=1, seconds=3.0, batched=640_000, single=32_000)


def tables(sizes: Sizes) -> tuple[Table, Table]:
    return (
        Table(
            32,
            sizes.batched,
            SIDES,
            (Ratio(WORKER, FAUST, 40), Ratio(WORKER, QUIX, 5), Ratio(WORKER, BARE, 0.25)),
        ),
        Table(1, sizes.single, (WORKER, FAUST), (Ratio(WORKER, FAUST, 4),)),
    )


async def run(table: Table, sizes: Sizes, seed: int, say: Say) -> dict[str, Figure]:
    async with filled(table.requests, table.batch_size, 1, seed, say) as (settings, asked, own):
        rates = await rounds(table, sizes, settings, asked, cores=own, say=say)
    return figures_of(rates, table.ratios, table.batch_size)


async def rounds(
    table: Table, sizes: Sizes, settings: Settings, asked: Asked, *, cores: set[int], say: Say
) -> dict[str, list[Rate]]:
    """Every side in each round, another one first each time."""
    rates: dict[str, list[Rate]] = {side: [] for side in table.sides}
    for number in range(sizes.rounds):
        say(f"batches of {table.batch_size}: round {number + 1} of {sizes.rounds}")
        first = number % len(table.sides)
        for side in (*table.sides[first:], *table.sides[:first]):
            start = start_of(side, str(number), settings, settings.state_dir / "bench")
            rate = await measure(start, asked, seconds=sizes.seconds, cores=cores, say=say)
            rates[side].append(rate)
    return rates


def main() -> None:
    sizes = QUICK if os.environ.get("QUICK") == "1" else FULL
    seed = int(os.environ.get("SEED", "1"))
    say = Narrator()
    figures: dict[str, Figure] = {}
    for table in tables(sizes):
        found = asyncio.run(run(table, sizes, seed, say))
        show(f"requests in batches of {table.batch_size}, rounds: {sizes.rounds}", found)
        figures |= found
    figures["took"] = say.took()
    end(RESULTS, figures)


if __name__ == "__main__":
    main()

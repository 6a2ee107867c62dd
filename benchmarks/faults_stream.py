"""Kills, rebalances and disorder of the stream: ``make faults-stream`` (``QUICK=1``, ``LONG=1``).

Usage flows into real usage logs, which the real shipper ships, and straight into the topic, with
messages again, in another order, late and far too late. Meanwhile workers, shipper, ClickHouse and
the broker are killed (SIGKILL) at moments drawn from a seed, and workers come and go. In the end
what is in ClickHouse and on the topics must equal, to the attodollar, what is reckoned from a
journal of what was emitted (``docs/faults-stream.md``).

``REQUESTS=…``, ``KILLS=…``, ``PER_S=…`` and ``SEED=…`` change one figure each; ``KEEP=1`` leaves
the folder.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.report import Figure, Narrator, end, show
from benchmarks.stream_faults.figures import examples_of, figures_of
from benchmarks.stream_faults.run import Sizes, go_through
from benchmarks.stream_faults.world import CHANGED_AGO_S, price_book
from streams.stack.config import StackConfig
from streams.stack.places import REPO
from streams.stack.stack import Stack

RESULTS = REPO / "build" / "results" / "faults_stream.json"
FULL = Sizes(requests=5_000_000, kills=100, boots=5, per_s=15_000, calm=0.7, waits=True)
LONG = Sizes(requests=10_000_000, kills=200, boots=10, per_s=15_000, calm=0.7, waits=True)
QUICK = Sizes(requests=100_000, kills=6, boots=2, per_s=10_000, calm=0.2, waits=False)


async def run(sizes: Sizes, seed: int, *, keep: bool) -> dict[str, Figure]:
    say = Narrator()
    folder = Path(tempfile.mkdtemp(prefix="meter-stream-faults-"))
    change_s = int(time.time()) - CHANGED_AGO_S
    try:
        book = folder / "book.toml"
        book.write_text(price_book(change_s))
        config = StackConfig(folder / "stack", price_book=book, preferred_ports=False)
        async with Stack(config, say, only=("worker", "shipper")) as stack:
            course, findings = await go_through(stack, sizes, seed, change_s, say)
    finally:
        if keep:
            say(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    for example in examples_of(findings):
        say(example)
    took = say.took()
    return {**figures_of(course, findings, sizes), "took": took}


def sizes_from(env: dict[str, str]) -> Sizes:
    sizes = QUICK if env.get("QUICK") == "1" else LONG if env.get("LONG") == "1" else FULL
    return replace(
        sizes,
        requests=int(env.get("REQUESTS") or sizes.requests),
        kills=int(env.get("KILLS") or sizes.kills),
        per_s=float(env.get("PER_S") or sizes.per_s),
    )


def main() -> None:
    sizes = sizes_from(dict(os.environ))
    seed = int(os.environ.get("SEED") or "1")
    for library in ("aiokafka", "clickhouse_connect"):  # what is away is meant to be
        logging.getLogger(library).setLevel(logging.CRITICAL)
    figures = asyncio.run(run(sizes, seed, keep=os.environ.get("KEEP") == "1"))
    show(f"{sizes.requests:,} requests, {sizes.kills} kills (seed {seed})", figures)
    end(RESULTS, figures)


if __name__ == "__main__":
    main()

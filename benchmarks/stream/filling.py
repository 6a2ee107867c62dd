"""A topic that is filled beforehand, on the real Kafka, beside ClickHouse."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.report import Say
from benchmarks.stream.events import COHORTS, messages, price_book
from benchmarks.stream.progress import Asked
from benchmarks.stream.sides import make_anew
from streams.publisher import Publisher
from streams.settings import Settings
from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from streams.topics import USAGE_BATCHES

AT_ONCE = 2_000


@asynccontextmanager
async def filled(
    requests: int, batch_size: int, partitions: int, seed: int, say: Say
) -> AsyncIterator[tuple[Settings, Asked, set[int]]]:
    """The stack with its usage topic filled, who can be asked how far a side is, and the core that
    is left to the sides."""
    folder = Path(tempfile.mkdtemp(prefix="meter-bench-"))
    before = os.sched_getaffinity(0)
    others, own = divided(before)
    os.sched_setaffinity(0, others)  # and so whatever is started from here on
    try:
        book = folder / "bench-prices.toml"
        book.write_text(price_book())
        config = StackConfig(folder, price_book=book, preferred_ports=False)
        async with Stack(config, say, only=("topics", "schema")) as stack:
            await make_anew(stack.settings, {USAGE_BATCHES}, partitions)
            await fill(requests, batch_size, stack.settings, seed, say)
            async with Asked(stack.settings, batch_size) as asked:
                yield stack.settings, asked, own
    finally:
        os.sched_setaffinity(0, before)
        shutil.rmtree(folder, ignore_errors=True)


def divided(cores: set[int]) -> tuple[set[int], set[int]]:
    """The last core is the sides', the others are Kafka's and ClickHouse's."""
    *others, last = sorted(cores)
    return set(others) or {last}, {last}


async def fill(requests: int, batch_size: int, settings: Settings, seed: int, say: Say) -> None:
    publisher = Publisher(settings)
    await publisher.start()
    try:
        waiting, sent, size = [], 0, 0
        for record in messages(requests, batch_size, seed=seed, until_ns=time.time_ns()):
            waiting.append(record)
            size += len(record.value or b"")
            if len(waiting) == AT_ONCE:
                await publisher.publish(waiting)
                sent += len(waiting)
                waiting = []
                if sent % (10 * AT_ONCE) == 0:
                    say(f"filling the topic: {sent * batch_size:,} of {requests:,}")
        await publisher.publish(waiting)
        sent += len(waiting)
    finally:
        await publisher.stop()
    say(
        f"{sent * batch_size:,} requests of {COHORTS} cohorts in {sent:,} messages "
        f"of {size / sent:,.0f} bytes"
    )

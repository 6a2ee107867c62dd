"""Where the worker's time goes: ``make profile``, or with ``QUICK=1``.

The worker's two stages on messages that are made beforehand, in takes as Faust gives them. What
is written is made ready and then dropped: there is no Kafka and no ClickHouse here, so their
clients and Faust itself are not in it. ``make bench-stream`` says what all of it takes together.
"""

from __future__ import annotations

import asyncio
import cProfile
import io
import os
import pstats
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from benchmarks.profiling.sources import FEW, MANY, TAKE, of_sources
from benchmarks.profiling.stages import Stopwatches
from benchmarks.report import Figure, write
from benchmarks.stream.events import messages, price_book
from metering.ledger import Ledger
from metering.messages import Message
from metering.totals import Totals
from metering.window_rows import WindowRows
from sinks.clickhouse.connection import ClickHouseTarget
from sinks.clickhouse.writer import ClickHouseWriter
from sinks.prometheus import WorkerMetrics
from streams.publisher import Record
from streams.stack.places import REPO
from streams.topics import ADDITIONS
from streams.worker.app import TAKE_MESSAGES
from streams.worker.book import PriceBookFile
from streams.worker.pricing import Pricing
from streams.worker.totalling import Totalling

RESULTS = REPO / "build" / "results" / "profile_worker.json"
BATCH_SIZE = 32
BAR = 40
HOTTEST = 15
TELL_EVERY = 4
"""At 128,000 requests a second that is twice a second."""
STAGES = {
    "read": ("metering.ledger:read",),
    "price": ("metering.ledger:price",),
    "additions to windows": ("metering.ledger:additions_of", "metering.ledger:too_late_for"),
    "deduplicate, the rest of take": ("streams.worker.pricing:take",),
    "columns for ClickHouse": (
        "sinks.clickhouse.writer:table_of_all",
        "sinks.clickhouse.writer:window_table",
    ),
    "events for Kafka": (
        "streams.worker.pricing:lines_records",
        "streams.worker.pricing:refusal_record",
        "streams.worker.totalling:window_records",
    ),
    "additions out and in": (
        "streams.worker.pricing:additions_records",
        "streams.worker.totalling:decode",
    ),
    "add up": ("streams.worker.totalling:add",),
    "save ledger and totals": (
        "streams.worker.pricing:changed_records",
        "metering.totals_records:_value",
        "metering.totals_records:_head",
    ),
    "count metrics": ("streams.worker.pricing:Pricing._count",),
}


class Unsent(ClickHouseWriter):
    """Columns are made of the rows, and dropped."""

    def _send(self, table: str, rows: int, insert: Callable[[Any, str], object]) -> None: ...


class Worker:
    """Both stages, with one partition each; windows are told behind every ``TELL_EVERY`` takes."""

    def __init__(self, folder: Path) -> None:
        book = folder / "prices.toml"
        book.write_text(price_book())
        self._writer = Unsent(ClickHouseTarget("http://127.0.0.1:1"))
        self._additions: list[Message] = []
        self._takes = self._offset = 0
        metrics = WorkerMetrics(CollectorRegistry())
        self._pricing = Pricing(
            0,
            partitions=1,
            ways=1,
            ledger=Ledger(),
            prices=PriceBookFile(book),
            store=self._writer.write_lines,
            room=self._room,
            commit=self._commit,
            end_offset=self._end_offset,
            read_stretch=self._nothing,
            metrics=metrics,
        )
        self._totalling = Totalling(
            0,
            totals=Totals(),
            write_rows=self._write_rows,
            commit=self._commit,
            read_stretch=self._nothing,
            metrics=metrics,
        )

    async def handle(self, messages: Sequence[Message]) -> None:
        await self._pricing.handle(messages)
        await self._totalling.handle(self._additions, lambda: None)
        self._additions = []
        self._takes += 1
        if self._takes % TELL_EVERY == 0:
            await self._totalling.tell()

    async def _commit(self, records: Iterable[Record]) -> None:
        for record in records:
            if record.topic == ADDITIONS:
                self._additions.append(Message(self._offset, 0, record.value or b""))
                self._offset += 1

    async def _write_rows(self, rows: WindowRows) -> None:
        self._writer.write_windows(rows)

    async def _room(self) -> None: ...

    async def _end_offset(self, _partition: int) -> int | None:
        return None

    async def _nothing(self, _first: int, end: int) -> tuple[list[Message], int]:
        return [], end


async def handle(takes: Sequence[Sequence[Message]], folder: Path) -> None:
    worker = Worker(folder)
    for own in takes:
        await worker.handle(own)


def made(requests: int, seed: int) -> list[list[Message]]:
    now_ns = time.time_ns()
    all_ = [
        Message(offset, now_ns, record.value or b"", tuple(record.headers))
        for offset, record in enumerate(messages(requests, BATCH_SIZE, seed=seed, until_ns=now_ns))
    ]
    return [all_[n : n + TAKE_MESSAGES] for n in range(0, len(all_), TAKE_MESSAGES)]


def staged(takes: Sequence[Sequence[Message]], folder: Path, requests: int) -> dict[str, float]:
    """µs per request by stage."""
    asyncio.run(handle(takes[:1], folder))  # what is imported at its first use
    watches = Stopwatches(STAGES)
    with watches.in_place():
        begun_ns = time.perf_counter_ns()
        asyncio.run(handle(takes, folder))
        whole_ns = time.perf_counter_ns() - begun_ns
    rest = {"handing over, waiting for threads": whole_ns - sum(watches.own_ns.values())}
    return {name: ns / requests / 1e3 for name, ns in (watches.own_ns | rest).items()}


def drawn(stages: dict[str, float]) -> str:
    whole = sum(stages.values())
    lines = [f"{'stage':<36}{'µs/request':>10}{'share':>8}"]
    for name, taken in stages.items():
        share = taken / whole
        bar = "█" * round(share * BAR)
        lines.append(f"{name:<36}{taken:>10.2f}{share:>8.1%}  {bar}".rstrip())
    lines.append(f"{'all':<36}{whole:>10.2f}{'':>8}  {1e6 / whole:,.0f} requests/s")
    return "\n".join(lines)


def hottest(takes: Sequence[Sequence[Message]], folder: Path) -> str:
    """By cProfile, which makes each call dearer than it is; what threads do is not in it."""
    profile = cProfile.Profile()
    profile.runcall(asyncio.run, handle(takes, folder))
    out = io.StringIO()
    pstats.Stats(profile, stream=out).strip_dirs().sort_stats("tottime").print_stats(HOTTEST)
    return out.getvalue().strip()


def by_sources(takes: int, seed: int) -> dict[str, Figure]:
    """A take of 500 batches with few and with many sources."""
    few, many = (of_sources(count, takes, seed=seed) for count in (FEW, MANY))
    ratio = many.ms / few.ms
    print(f"a take of {TAKE} batches of one request, each with a broker's stamp of its own")
    for count, cost in ((FEW, few), (MANY, many)):
        print(
            f"  {count:>6,} sources: decided in {cost.decide_ms:.1f} ms, made ready to be saved in "
            f"{cost.save_ms:.1f} ms, {cost.saved_bytes:,} bytes"
        )
    print(f"  {MANY // FEW} times the sources, {ratio:.2f} times the time")
    return {
        "take_few_sources": Figure(round(few.ms, 2), "ms"),
        "take_many_sources": Figure(round(many.ms, 2), "ms"),
        "many_sources_to_few": Figure(round(ratio, 3), "ratio"),
    }


def main() -> None:
    requests = 32_000 if os.environ.get("QUICK") == "1" else 256_000
    seed = int(os.environ.get("SEED", "1"))
    print(f"making {requests:,} requests in batches of {BATCH_SIZE}", flush=True)
    takes = made(requests, seed)
    with tempfile.TemporaryDirectory(prefix="meter-profile-") as name:
        folder = Path(name)
        print("with stopwatches", flush=True)
        stages = staged(takes, folder, requests)
        print(drawn(stages))
        print("with cProfile", flush=True)
        print(hottest(takes[: max(1, len(takes) // 4)], folder))
    whole = sum(stages.values())
    figures = {
        name: Figure(round(taken, 3), "us/request", spread=f"{taken / whole:.1%}")
        for name, taken in stages.items()
    }
    figures["all"] = Figure(round(whole, 3), "us/request")
    figures |= by_sources(2 if os.environ.get("QUICK") == "1" else 10, seed)
    write(RESULTS, figures)
    print(f"written to {RESULTS.relative_to(REPO)}")


if __name__ == "__main__":
    main()

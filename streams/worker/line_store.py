"""Lines on their way into ClickHouse: those of all partitions in few large inserts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial

from metering.lines import CostLines
from sinks.prometheus import WorkerMetrics
from streams.worker.death import or_die
from streams.worker.retries import until_written
from streams.worker.together import Together

WITHIN_S = 0.2
"""So long lines wait for others."""
MOST_WAITING = 100_000
"""Lines. While more wait nothing more is taken: that is what a ClickHouse that is away or slow does
to the stream."""


class LineStore:
    """``write`` is called in a thread, for one list at a time, and may raise SinkUnavailable."""

    def __init__(
        self, write: Callable[[Sequence[CostLines]], None], metrics: WorkerMetrics
    ) -> None:
        self._write = write
        self._metrics = metrics
        self._together = Together(self._write_all, WITHIN_S)
        self._open: dict[int, set[asyncio.Task[None]]] = {}
        self._waiting = 0
        self._has_room = asyncio.Event()

    def put(self, partition: int, lines: CostLines) -> None:
        """To be stored; they are held until they are."""
        if not lines.count:
            return
        self._waiting += lines.count
        task = asyncio.create_task(self._store(lines))
        own = self._open.setdefault(partition, set())
        own.add(task)
        task.add_done_callback(own.discard)

    async def stored(self, partition: int) -> None:
        """Returns when all that was put of the partition before is stored."""
        await asyncio.gather(*self._open.get(partition, ()))

    async def room(self) -> None:
        """Returns when not too many wait."""
        while self._waiting > MOST_WAITING:
            self._has_room.clear()
            await self._has_room.wait()

    async def _store(self, lines: CostLines) -> None:
        with or_die():
            await until_written(partial(self._together, lines), self._metrics, "lines")
        self._waiting -= lines.count
        self._has_room.set()

    def _write_all(self, parts: list[CostLines]) -> None:
        started = time.monotonic()
        self._write(parts)
        self._metrics.insert_seconds.observe(time.monotonic() - started)
        self._metrics.inserted_lines.inc(sum(lines.count for lines in parts))

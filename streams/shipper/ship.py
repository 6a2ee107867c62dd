"""Ships every source's frames in order; moves a checkpoint only after Kafka's acknowledgement.

A crash between the acknowledgement and the checkpoint sends the same frames again, under the
same identity (``ce_source``, ``ce_id``); the stream knows them and does not count them twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from pathlib import Path
from typing import IO, Protocol

from metering.cloudevents import USAGE_BATCH_TYPE, encode_headers
from metering.errors import MeteringError, SinkUnavailable, UnreadableUsage
from metering.finishing import usage_of_payload
from metering.records import is_record
from metering.usage import UsageBatch
from metering.usage_columns import encode_columns
from metering.wal_cap import MAX_BYTES, SHIPPER_LOCK
from sinks.outages import OUTAGES
from sinks.prometheus import ShipperMetrics
from streams.publisher import Record
from streams.shipper.order import in_time_order
from streams.shipper.reader import Chunk, SourceReader
from streams.shipper.upkeep import Upkeep
from streams.topics import USAGE_BATCHES

log = logging.getLogger(__name__)

IDLE_S = 0.05
UPKEEP_S = 0.5
RETRY_FIRST_S = 0.2
RETRY_MOST_S = 5.0
DRAIN_S = 5.0
FLIGHT_BYTES = 16 * 1024**2
"""About as much is on its way at a time, whatever the number of sources. What a round does not take
can be dropped at the cap, and the shipper's memory is bounded by it."""
_AT_WORK = "sending"


class Sink(Protocol):
    async def publish(self, records: list[Record]) -> None:
        """Returns when all are acknowledged, or raises SinkUnavailable."""


def event_of(payload: bytes) -> bytes:
    """The event that is made of a record. What can't be read goes as it is: the stream refuses it
    by name, and it is on the dead-letter topic for whoever wants to know."""
    if not is_record(payload):
        return payload
    try:
        batch = usage_of_payload(payload)
        _log_invalid(batch)
        return encode_columns(batch)
    except UnreadableUsage as exc:
        log.error("a record that can't be read: %s", exc.detail)
        return payload


def _log_invalid(batch: UsageBatch) -> None:
    """One line for a batch, whatever is invalid about it."""
    marked = [request.invalid for request in batch.requests if request.invalid]
    if marked or batch.invalid:
        log.warning(
            "model %s, batch %s: %d of %d requests are invalid, and priced by what is known: %s",
            batch.model,
            batch.batch_id,
            len(marked),
            len(batch.requests),
            "; ".join(dict.fromkeys(filter(None, (batch.invalid, *marked[:1])))),
        )


class Shipper:
    """All sources below one log folder; one shipper per folder (a lock sees to it)."""

    def __init__(
        self, log_dir: Path, publisher: Sink, metrics: ShipperMetrics, max_bytes: int = MAX_BYTES
    ) -> None:
        self._log_dir = log_dir
        self._publisher = publisher
        self._metrics = metrics
        self._readers: dict[str, SourceReader] = {}
        self._turn = 0
        self._lock: IO[str] | None = None
        self._was_cut_off = False
        self.upkeep = Upkeep(log_dir, self._readers, metrics, max_bytes)

    def lock(self) -> None:
        """Raises MeteringError: another shipper is at work on this folder, or it is none."""
        path = self._log_dir / SHIPPER_LOCK
        try:
            self._log_dir.mkdir(parents=True, exist_ok=True)
            self._lock = path.open("a+", encoding="utf-8")
        except OSError as exc:
            raise MeteringError(
                f"METER_LOG_DIR={self._log_dir}: no folder to read and write in: {exc.strerror}"
            ) from exc
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise MeteringError(
                f"{path} is held: another shipper is at work on this folder; stop it first"
            ) from exc
        self._lock.seek(0)
        self._was_cut_off = self._lock.read() == _AT_WORK

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Until ``stop`` is set and what is there then is shipped, or ``DRAIN_S`` are over."""
        stop = asyncio.Event() if stop is None else stop
        self._mark(_AT_WORK)
        shipping = asyncio.create_task(self._ship(stop))
        keeping = asyncio.create_task(self._keep_up())
        stopping = asyncio.create_task(stop.wait())
        tasks = {shipping, keeping, stopping}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
            await asyncio.wait({shipping}, timeout=DRAIN_S)
            if shipping.done():
                shipping.result()
                self._mark("")
            else:
                log.warning("not all was shipped in %.0f s; it waits in the log", DRAIN_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def ship_once(self) -> bool:
        """A chunk of each source that has one; ``False``: there was nothing to ship."""
        chunks = self._take()
        if not chunks:
            return False
        if self._was_cut_off:
            again = sum(len(chunk.frames) for reader, chunk in chunks if reader.resumed)
            self._metrics.redelivered.inc(again)
        await self._send(chunks)
        for reader, chunk in chunks:
            reader.commit(chunk.end)
            reader.resumed = False
            self._metrics.shipped.inc(len(chunk.frames))
            self._metrics.corrupt.inc(chunk.corrupt)
            self._metrics.missing.inc(chunk.missing)
            if chunk.corrupt or chunk.missing:
                log.error(
                    "%s: %d unreadable places, %d batches missing",
                    reader.source,
                    chunk.corrupt,
                    chunk.missing,
                )
        return True

    def _take(self) -> list[tuple[SourceReader, Chunk]]:
        """One chunk of every source, up to ``FLIGHT_BYTES``; the next round begins behind them."""
        readers = list(self._readers.values())
        start = self._turn % len(readers) if readers else 0
        chunks, flight_bytes = [], 0
        for reader in readers[start:] + readers[:start]:
            if flight_bytes >= FLIGHT_BYTES:
                break
            self._turn += 1
            chunk = reader.read()
            if chunk is not None:
                chunks.append((reader, chunk))
                flight_bytes += sum(len(frame.payload) for frame in chunk.frames)
        return chunks

    async def _send(self, chunks: list[tuple[SourceReader, Chunk]]) -> None:
        records = [
            Record(
                USAGE_BATCHES,
                source.encode(),
                event_of(frame.payload),
                encode_headers(USAGE_BATCH_TYPE, source, str(frame.sequence), None),
            )
            for source, frame in in_time_order((r.source, chunk.frames) for r, chunk in chunks)
        ]
        delay_s = RETRY_FIRST_S
        while True:
            try:
                await self._publisher.publish(records)
            except SinkUnavailable as exc:
                self._metrics.failures.inc()
                self._metrics.redelivered.inc(exc.rows)  # Kafka may have taken any of them.
                OUTAGES.failed(self, exc)  # usage waits in the log
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MOST_S)
            else:
                OUTAGES.recovered(self)
                return

    async def _ship(self, stop: asyncio.Event) -> None:
        while True:
            stopping = stop.is_set()
            if stopping:
                self.upkeep.discover()
            if not await self.ship_once():
                if stopping:
                    return
                await asyncio.sleep(IDLE_S)

    async def _keep_up(self) -> None:
        while True:
            await self.upkeep.once(time.time())
            await asyncio.sleep(UPKEEP_S)

    def _mark(self, text: str) -> None:
        """What the next shipper finds: whether this one came to its end."""
        if self._lock is not None:
            with contextlib.suppress(OSError):  # on a full disk; the count is then too low
                os.ftruncate(self._lock.fileno(), 0)
                os.pwrite(self._lock.fileno(), text.encode(), 0)

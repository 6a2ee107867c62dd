"""Ships every source's frames in order; moves a checkpoint only after Kafka's acknowledgement.

A crash between the acknowledgement and the checkpoint sends the same frames again, under the
same identity (``ce_source``, ``ce_id``); the stream knows them and does not count them twice.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
from pathlib import Path
from typing import IO

from metering.cloudevents import USAGE_BATCH_TYPE, encode_headers
from metering.errors import MeteringError, SinkUnavailable
from metering.wal import SUFFIX, source_of
from sinks.prometheus import ShipperMetrics
from streams.publisher import Publisher, Record
from streams.shipper.reader import Chunk, SourceReader
from streams.topics import USAGE_BATCHES

log = logging.getLogger(__name__)

IDLE_S = 0.05
RESCAN_S = 1.0
RETRY_FIRST_S = 0.2
RETRY_MOST_S = 5.0


class Shipper:
    """All sources below one log folder; one shipper per folder (a lock sees to it)."""

    def __init__(self, log_dir: Path, publisher: Publisher, metrics: ShipperMetrics) -> None:
        self._log_dir = log_dir
        self._publisher = publisher
        self._metrics = metrics
        self._readers: dict[str, SourceReader] = {}
        self._lock: IO[str] | None = None

    def lock(self) -> None:
        """Raises MeteringError: another shipper is at work on this folder."""
        self._log_dir.mkdir(parents=True, exist_ok=True)
        path = self._log_dir / "shipper.lock"
        self._lock = path.open("w", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise MeteringError(
                f"{path} is held: another shipper is at work on this folder; stop it first"
            ) from exc

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        next_scan = loop.time()
        while True:
            if loop.time() >= next_scan:
                self._scan()
                next_scan = loop.time() + RESCAN_S
            if not await self.ship_once():
                await asyncio.sleep(IDLE_S)

    async def ship_once(self) -> bool:
        """One chunk of every source that has one; ``False``: there was nothing to ship."""
        chunks = [
            (reader, chunk)
            for reader in self._readers.values()
            if (chunk := reader.read()) is not None
        ]
        if chunks:
            await self._send(chunks)
            for reader, chunk in chunks:
                reader.commit(chunk.end)
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
        self._metrics.lag_bytes.set(sum(r.lag_bytes() for r in self._readers.values()))
        return bool(chunks)

    async def _send(self, chunks: list[tuple[SourceReader, Chunk]]) -> None:
        records = [
            Record(
                USAGE_BATCHES,
                reader.source.encode(),
                frame.payload,
                encode_headers(USAGE_BATCH_TYPE, reader.source, str(frame.sequence), None),
            )
            for reader, chunk in chunks
            for frame in chunk.frames
        ]
        delay_s = RETRY_FIRST_S
        while True:
            try:
                await self._publisher.publish(records)
            except SinkUnavailable as exc:
                self._metrics.failures.inc()
                log.warning("%s; usage waits in the log, trying again in %.1f s", exc, delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MOST_S)
            else:
                return

    def _scan(self) -> None:
        for folder in {path.parent for path in self._log_dir.rglob(f"*{SUFFIX}")}:
            source = source_of(self._log_dir, folder / f"any{SUFFIX}")
            if source not in self._readers:
                self._readers[source] = SourceReader(folder, source)
                log.info("shipping %s", source)

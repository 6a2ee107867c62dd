"""What the shipper does beside shipping, and goes on doing while Kafka is away.

It finds new sources, keeps the log at its cap, gathers what was lost, removes the folders of
processes that are gone, and tells Prometheus how much waits and for how long.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from metering.errors import MeteringError
from metering.wal import SUFFIX, decode_frames, source_of
from metering.wal_cap import (
    CHECKPOINT,
    SHIPPER_LOCK,
    UNWRITTEN,
    WRITER_LOCK,
    SourceFiles,
    drop_lock,
    enforce,
    size_bytes,
    survey,
    writer_is_gone,
)
from sinks.prometheus import ShipperMetrics
from streams.shipper.losses import Losses
from streams.shipper.reader import Position, SourceReader

log = logging.getLogger(__name__)

RETIRE_EVERY = 10
"""Folders of the dead are looked for in every so many-th round."""


class Upkeep:
    """``readers`` is the shipper's own, by source: new ones come, those of the dead go."""

    def __init__(
        self,
        log_dir: Path,
        readers: dict[str, SourceReader],
        metrics: ShipperMetrics,
        max_bytes: int,
    ) -> None:
        self._log_dir = log_dir
        self._readers = readers
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._losses: Losses | None = None
        self._told = (0, 0, 0, 0, 0)
        self._rounds = 0
        self._unreadable: set[str] = set()
        self._oldest: dict[str, tuple[tuple[Position | None, int], float]] = {}
        metrics.max_bytes.set(max_bytes)

    async def once(self, now_s: float) -> None:
        """One round; what fails for want of space or access is tried again in the next."""
        try:
            self._tend()
            found = self.discover()
            if size_bytes(found.values()) > self._max_bytes:
                await asyncio.to_thread(enforce, self._log_dir, self._max_bytes)
                found = survey(self._log_dir)
            self._gather(found)
            if self._rounds % RETIRE_EVERY == 0:
                self._retire(found)
            self._rounds += 1
            self._tell(found, now_s)
        except OSError as exc:
            self._metrics.failures.inc()
            log.warning("upkeep of %s: %s; tried again", self._log_dir, exc)

    def discover(self) -> dict[Path, SourceFiles]:
        found = survey(self._log_dir)
        for folder in found:
            source = source_of(self._log_dir, folder / f"any{SUFFIX}")
            if source in self._readers or source in self._unreadable:
                continue
            try:
                self._readers[source] = SourceReader(folder, source, self._log_dir)
            except MeteringError as exc:  # The others are shipped all the same.
                self._unreadable.add(source)
                self._metrics.failures.inc()
                log.error("%s is not shipped: %s, and start the shipper again", source, exc)
            else:
                log.info("shipping %s", source)
        return found

    def _tend(self) -> None:
        """Emitters see by this that they need not look after the cap."""
        with suppress(FileNotFoundError):
            os.utime(self._log_dir / SHIPPER_LOCK)

    def _gather(self, found: Mapping[Path, SourceFiles]) -> None:
        if self._losses is None:
            self._losses = Losses(self._log_dir)
        losses = self._losses
        losses.gather(found)
        now = (
            losses.dropped.batches,
            losses.dropped.requests,
            losses.dropped.bytes,
            losses.unwritten.batches,
            losses.unwritten.requests,
        )
        counters = (
            self._metrics.dropped_batches,
            self._metrics.dropped_requests,
            self._metrics.dropped_bytes,
            self._metrics.unwritten_batches,
            self._metrics.unwritten_requests,
        )
        for counter, before, after in zip(counters, self._told, now, strict=True):
            counter.inc(after - before)
        self._told = now

    def _retire(self, found: Mapping[Path, SourceFiles]) -> None:
        for source, reader in list(self._readers.items()):
            files = found.get(reader.folder)
            if files is None:
                if not reader.folder.exists():
                    self._let_go(source)
            elif not files.dropped:
                self._retire_one(source, reader)

    def _retire_one(self, source: str, reader: SourceReader) -> None:
        """A folder goes when its process is gone and everything in it is shipped and counted.

        The segments go first: a crash in between leaves nothing that could be sent again.
        """
        with writer_is_gone(reader.folder) as gone:
            if not (gone and reader.is_exhausted() and self._is_gathered(reader.folder)):
                return
            if rest := reader.rest():
                log.info("%s: its last %d bytes are no frame; it died there", source, len(rest))
                damaged = decode_frames(rest)[2] is not None
                self._metrics.corrupt.inc(damaged)  # Else it is torn, and was never answered.
            with drop_lock(self._log_dir) as mine:
                if not mine:
                    return
                for path in reader.folder.glob(f"*{SUFFIX}"):
                    path.unlink()
                for name in (CHECKPOINT, f"{CHECKPOINT}.new", UNWRITTEN, WRITER_LOCK):
                    (reader.folder / name).unlink(missing_ok=True)
        self._let_go(source)
        with suppress(OSError):  # Something else lies there, or in a parent.
            folder = reader.folder
            while folder != self._log_dir:
                folder.rmdir()
                folder = folder.parent
        log.info("%s: its process is gone and all is shipped; folder removed", source)

    def _is_gathered(self, folder: Path) -> bool:
        return self._losses is not None and self._losses.is_gathered(folder)

    def _let_go(self, source: str) -> None:
        self._readers.pop(source).close()
        self._oldest.pop(source, None)

    def _tell(self, found: Mapping[Path, SourceFiles], now_s: float) -> None:
        lag_bytes, oldest_s = 0, now_s
        for source, reader in self._readers.items():
            files = found.get(reader.folder)
            sizes = {s.first_sequence: s.size_bytes for s in files.segments} if files else {}
            waiting_bytes = reader.lag_bytes(sizes)
            lag_bytes += waiting_bytes
            if waiting_bytes:
                oldest_s = min(oldest_s, self._oldest_s(source, reader, sizes, now_s))
        self._metrics.log_bytes.set(size_bytes(found.values()))
        self._metrics.lag_bytes.set(lag_bytes)
        self._metrics.lag_seconds.set(now_s - oldest_s)

    def _oldest_s(
        self, source: str, reader: SourceReader, sizes: Mapping[int, int], now_s: float
    ) -> float:
        """When the oldest batch that waits ended (epoch). It is read once, not in every round."""
        place = (reader.position, min(sizes))
        known = self._oldest.get(source)
        if known is not None and known[0] == place:
            return known[1]
        frame = reader.oldest(sizes)
        if frame is None:
            return now_s  # A torn record is no backlog.
        try:
            ended_s = float(json.loads(frame.payload)["end_epoch_ns"]) / 1e9
        except (ValueError, KeyError, TypeError):
            return now_s
        self._oldest[source] = (place, ended_s)
        return ended_s

"""The write-ahead usage log: a batch is in it before its requests are answered.

One ``write`` per batch on a file opened with ``O_APPEND``. A process that is killed loses nothing
that it has answered, for the kernel has the bytes; a machine that loses its power can lose what
was not yet synced. ``METER_LOG_FSYNC`` says how much that is: what the kernel has not written by
itself (``never``), a segment (``rotate``), what came in the last ``METER_LOG_FSYNC_MS``
(``interval``), or nothing (``always``, which costs a sync per batch).

What can't be written is counted, in a file that has its space from the start: a full disk is
counted on itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self, get_args

from metering.compiled_server import recorder
from metering.errors import MeteringError
from metering.wal import (
    Loss,
    encode_frame,
    encode_loss,
    first_sequence_of,
    inspect_segment,
    requests_in,
    segment_name,
    source_folder,
)
from metering.wal_cap import (
    MAX_BYTES,
    UNWRITTEN,
    WRITER_LOCK,
    hold_writer_lock,
    max_bytes_of,
    read_unwritten,
)
from triton_models.emitter.upkeep import CapKeeper, Syncer, sync, sync_folder

Fsync = Literal["never", "rotate", "interval", "always"]
SEGMENT_BYTES = 8 * 1024**2
SEGMENTS_WITHIN_CAP = 64
"""Per live source two segments can't be dropped: the one that is written, and the one that is being
sent. So that 32 sources never exceed the cap, a segment is at most this part of it."""
FSYNC_MS = 200
_frame = encode_frame if recorder is None else recorder.frame
LOOK_EVERY_NS = 100_000_000
"""Whether somebody has deleted the segment under us, and what is written goes with it. Each time it
costs a batch half as much as its write does."""
LOCK_TRIES = 5
LOCK_TRY_S = 0.001


class UsageLog:
    """Appends frames to a folder of segments; one writer per folder.

    Sequences are reserved before they are written: one that never was written shows as a gap to
    whoever reads the log, so a loss can be counted there. ``log_dir`` is the folder of all
    sources of this host, which together keep to ``max_bytes``; without it no cap is kept.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        fsync: Fsync = "never",
        fsync_ms: int = FSYNC_MS,
        log_dir: Path | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if fsync not in get_args(Fsync):
            raise MeteringError(f"METER_LOG_FSYNC={fsync!r} is none of {get_args(Fsync)}")
        self._folder = folder
        self._segment_bytes = min(segment_bytes, max(1, max_bytes // SEGMENTS_WITHIN_CAP))
        self._fsync = fsync
        self._syncer = Syncer(folder, fsync_ms / 1000) if fsync == "interval" else None
        self._cap = None if log_dir is None else CapKeeper(log_dir, max_bytes)
        self._fd: int | None = None
        self._size_bytes = 0
        self._look_at_ns = 0
        self._opened = False
        self._next_sequence = 0
        self._first_sequence = 0
        self._lock_fd: int | None = None
        self._loss_fd: int | None = None
        self._unwritten = Loss()
        self._unsaved = False

    @classmethod
    def from_env(cls, log_dir: Path, source: str, env: Mapping[str, str]) -> Self:
        """``METER_LOG_SEGMENT_BYTES``, ``_FSYNC``, ``_FSYNC_MS`` and ``_MAX_BYTES``.

        Raises:
            MeteringError: one of them can't be used.
        """
        return cls(
            source_folder(log_dir, source),
            segment_bytes=_whole(env, "METER_LOG_SEGMENT_BYTES", SEGMENT_BYTES),
            fsync=env.get("METER_LOG_FSYNC") or "never",  # type: ignore[arg-type]  # it looks
            fsync_ms=_whole(env, "METER_LOG_FSYNC_MS", FSYNC_MS),
            log_dir=log_dir,
            max_bytes=max_bytes_of(env),
        )

    def open(self) -> None:
        """Cut the torn tail that a crash left, and go on after the last sequence in the folder.

        Raises:
            OSError: the folder can't be made or read.
        """
        if self._opened:
            return
        self._settle()
        segments = sorted(p for p in self._folder.iterdir() if first_sequence_of(p) is not None)
        self._first_sequence = self._recover(segments[-1]) if segments else 0
        self._next_sequence += self._first_sequence
        self._unwritten += read_unwritten(self._folder)
        self._opened = True
        self._save_unwritten()

    def reserve(self) -> int:
        """The next sequence, never to be given again, even while the log can't be opened."""
        if not self._opened:
            with suppress(OSError):  # `append` tries again, and counts what is lost.
                self.open()
        sequence = self._next_sequence
        self._next_sequence += 1
        return sequence

    def append(self, sequence: int, payload: bytes, requests: int | None = None) -> None:
        """Write one whole frame, or nothing; then ``requests`` are counted as lost with it.

        Without ``requests`` a lost payload is read for them.

        Raises:
            OSError: the disk is full or away. The record is lost; the next one tries again.
            MeteringError: the payload doesn't fit into a frame.
        """
        try:
            fd = self._write(sequence, _frame(sequence, payload))
        except (OSError, MeteringError):
            self.lose(requests_in(payload) if requests is None else requests)
            raise
        if self._unsaved:
            self._save_unwritten()
        if self._syncer is not None:
            self._syncer.dirty = fd
        elif self._fsync == "always":
            sync(fd)

    def lose(self, requests: int) -> None:
        """Count a batch that is not in the log: ``append`` does it for what it can't write, its
        caller for a sequence that never came to ``append``."""
        self._unwritten += Loss(batches=1, requests=requests)
        self._unsaved = True
        if self._opened:
            self._save_unwritten()

    def close(self) -> None:
        """All that was appended is on the disk when this returns, unless ``fsync`` is "never"."""
        if self._fd is not None and self._fsync in ("rotate", "always"):
            sync(self._fd)
        self._leave()
        if self._syncer is not None:
            self._syncer.stop()
        if self._cap is not None:
            self._cap.wait()
        for fd in (self._loss_fd, self._lock_fd):
            if fd is not None:
                os.close(fd)
        self._loss_fd = self._lock_fd = None

    def _write(self, sequence: int, frame: bytes) -> int:
        fd, written = self._fd, 0
        is_full = self._size_bytes + len(frame) > self._segment_bytes
        if fd is None or is_full or time.monotonic_ns() >= self._look_at_ns:
            fd = self._segment_for(sequence, len(frame))
        try:
            written = os.write(fd, frame)
            if written != len(frame):
                raise OSError(f"{self._folder}: {written} of {len(frame)} bytes were written")
        except OSError:
            self._step_back(fd, written)
            raise
        self._size_bytes += written
        return fd

    def _step_back(self, fd: int, torn_bytes: int) -> None:
        """What is sound in the segment stays, and the next batch begins another one: so this one
        can go when it is shipped, and make space."""
        try:
            if torn_bytes:
                os.ftruncate(fd, self._size_bytes)
        except OSError:
            self._leave()  # The torn tail stays behind, at the end.
        else:
            if self._size_bytes > 0:
                self._leave()

    def _segment_for(self, sequence: int, frame_bytes: int) -> int:
        if self._fd is not None:
            if self._size_bytes > 0 and self._size_bytes + frame_bytes > self._segment_bytes:
                if self._fsync in ("rotate", "always"):
                    sync(self._fd)
                self._leave()
                if self._cap is not None:
                    self._cap.look(time.time())
            elif os.fstat(self._fd).st_nlink == 0:  # Somebody deleted the file under us.
                self._leave()
        self._look_at_ns = time.monotonic_ns() + LOOK_EVERY_NS
        if self._fd is not None:
            return self._fd
        self.open()
        if sequence < self._first_sequence:
            raise OSError(f"{self._folder}: sequence {sequence} is before what is in the log")
        self._settle()
        self._save_unwritten()
        fd = self._use(self._folder / segment_name(sequence), os.O_CREAT | os.O_EXCL)
        if self._fsync in ("rotate", "always"):
            sync_folder(self._folder)
        return fd

    def _use(self, segment: Path, flags: int) -> int:
        self._fd = os.open(segment, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | flags, 0o640)
        self._size_bytes = os.fstat(self._fd).st_size
        return self._fd

    def _leave(self) -> None:
        fd, self._fd = self._fd, None
        if fd is None:
            return
        if self._syncer is not None:
            self._syncer.retire(fd)
        else:
            os.close(fd)

    def _settle(self) -> None:
        """Whenever a segment is begun, for the folder may have been removed under us."""
        if not _lies_at(self._folder / WRITER_LOCK, self._lock_fd):
            lock_fd, self._lock_fd = self._lock_fd, None
            if lock_fd is not None:
                os.close(lock_fd)
            self._lock_fd = self._hold()
        if self._syncer is not None:
            self._syncer.start()

    def _hold(self) -> int:
        for _ in range(LOCK_TRIES):
            with suppress(FileNotFoundError):  # An empty parent is just being removed.
                self._folder.mkdir(parents=True, exist_ok=True)
                if (fd := hold_writer_lock(self._folder)) is not None:
                    return fd
            time.sleep(LOCK_TRY_S)
        raise OSError(f"{self._folder / WRITER_LOCK} is held by who removes or drops")

    def _save_unwritten(self) -> None:
        path = self._folder / UNWRITTEN
        try:
            if self._loss_fd is None or not _lies_at(path, self._loss_fd):
                loss_fd, self._loss_fd = self._loss_fd, None
                if loss_fd is not None:
                    os.close(loss_fd)
                self._loss_fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
            os.pwrite(self._loss_fd, encode_loss(self._unwritten), 0)
            self._unsaved = False
        except OSError:
            self._unsaved = True  # With the next batch, then.

    def _recover(self, last: Path) -> int:
        buf = last.read_bytes()
        found = inspect_segment(buf)
        first = first_sequence_of(last)
        if found.keep_bytes < len(buf):
            os.truncate(last, found.keep_bytes)
        if not found.problems:
            self._use(last, 0)
        elif first is not None and (found.last_sequence is None or found.last_sequence < first):
            return first + 1  # Damaged, nothing sound in it: its name is taken.
        if found.last_sequence is not None:
            return found.last_sequence + 1
        return first if first is not None else 0


def _lies_at(path: Path, fd: int | None) -> bool:
    try:
        return fd is not None and os.path.samestat(os.stat(path), os.fstat(fd))
    except OSError:
        return False


def _whole(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise MeteringError(f"{name}={text!r} is no whole number above 0")
    return int(text)

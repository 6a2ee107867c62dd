"""The write-ahead usage log: a batch is in it before its requests are answered.

One ``write`` per batch on a file opened with ``O_APPEND``. A process that is killed loses nothing
that it has answered, for the kernel has the bytes; a machine that loses its power can lose what
was not yet synced (``METER_LOG_FSYNC=always`` closes that window and costs a sync per batch).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, get_args

from metering.errors import MeteringError
from metering.wal import encode_frame, first_sequence_of, inspect_segment, segment_name

Fsync = Literal["never", "rotate", "always"]
SEGMENT_BYTES = 8 * 1024**2


class UsageLog:
    """Appends frames to a folder of segments; one writer per folder.

    Sequences are reserved before they are written: one that never was written shows as a gap to
    whoever reads the log, so a loss can be counted there.
    """

    def __init__(
        self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, fsync: Fsync = "never"
    ) -> None:
        if fsync not in get_args(Fsync):
            raise MeteringError(f"METER_LOG_FSYNC={fsync!r} is none of {get_args(Fsync)}")
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._fsync = fsync
        self._fd: int | None = None
        self._size_bytes = 0
        self._next_sequence: int | None = None

    def open(self) -> None:
        """Cut the torn tail that a crash left, and go on after the last sequence in the folder.

        Raises:
            OSError: the folder can't be made or read.
        """
        if self._next_sequence is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        segments = sorted(p for p in self._folder.iterdir() if first_sequence_of(p) is not None)
        self._next_sequence = self._recover(segments[-1]) if segments else 0

    def reserve(self) -> int:
        """The next sequence, never to be given again."""
        self.open()
        assert self._next_sequence is not None  # noqa: S101  # set by open()
        sequence = self._next_sequence
        self._next_sequence += 1
        return sequence

    def append(self, sequence: int, payload: bytes) -> None:
        """Write one whole frame, or nothing.

        Raises:
            OSError: the disk is full or away. The record is lost; the next one tries again.
            MeteringError: the payload doesn't fit into a frame.
        """
        frame = encode_frame(sequence, payload)
        fd = self._segment_for(sequence, len(frame))
        written = os.write(fd, frame)
        if written != len(frame):
            try:
                os.ftruncate(fd, self._size_bytes)
            except OSError:
                self._leave()  # A torn tail stays behind, at the end of a segment of its own.
            raise OSError(f"{self._folder}: {written} of {len(frame)} bytes were written")
        self._size_bytes += written
        if self._fsync == "always":
            os.fsync(fd)

    def close(self) -> None:
        if self._fd is not None and self._fsync != "never":
            os.fsync(self._fd)
        self._leave()

    def _segment_for(self, sequence: int, frame_bytes: int) -> int:
        if self._fd is not None:
            full = self._size_bytes > 0 and self._size_bytes + frame_bytes > self._segment_bytes
            if full:
                self.close()
            elif os.fstat(self._fd).st_nlink == 0:  # Somebody deleted the file under us.
                self._leave()
        if self._fd is not None:
            return self._fd
        self._folder.mkdir(parents=True, exist_ok=True)
        fd = self._use(self._folder / segment_name(sequence), os.O_CREAT | os.O_EXCL)
        if self._fsync != "never":
            _sync_folder(self._folder)
        return fd

    def _use(self, segment: Path, flags: int) -> int:
        self._fd = os.open(segment, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | flags, 0o640)
        self._size_bytes = os.fstat(self._fd).st_size
        return self._fd

    def _leave(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

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


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

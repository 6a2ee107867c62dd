"""Reads one source's segments from where the last acknowledged send ended."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from metering.errors import MeteringError
from metering.wal import (
    MAX_FRAME_BYTES,
    Frame,
    decode_frames,
    first_sequence_of,
    resume_offset,
    segment_name,
)
from metering.wal_cap import CHECKPOINT, drop_lock

READ_BYTES = 4 * 1024**2
OLDEST_BYTES = 64 * 1024
CHECKPOINT_BYTES = 128
SETTLED_NS = 50_000_000
"""A folder that changed so lately may change again under the same time stamp."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Position:
    """Everything before ``offset`` of the segment ``segment`` is shipped; ``next_sequence``
    is the one that comes next where none is missing."""

    segment: int
    offset: int
    next_sequence: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """What was read, and where the next read begins once this is acknowledged.

    ``corrupt`` counts places that can't be read; ``missing`` the batches that are not there.
    All frames are of one segment, and the checkpoint lies in it: it is not dropped meanwhile.
    """

    frames: list[Frame]
    end: Position
    corrupt: int
    missing: int


class SourceReader:
    """One source's folder. Reading ships nothing; ``commit`` says what was shipped.

    ``log_dir`` is the folder of all sources. To read a further segment the checkpoint is moved to
    its beginning first, under the drop lock. ``resumed`` says that the
    checkpoint is that of a shipper before this one.
    """

    def __init__(self, folder: Path, source: str, log_dir: Path | None = None) -> None:
        self.source = source
        self.folder = folder
        self._log_dir = folder if log_dir is None else log_dir
        self._position = self._load()
        self.resumed = self._position is not None
        self._fd: int | None = None
        # Where no frame was found, and how many bytes lie there: it is not searched again.
        self._barren: tuple[tuple[int, int, int, bool], int] | None = None
        self._listed: list[int] = []
        self._listed_ns = -1

    @property
    def position(self) -> Position | None:
        return self._position

    def read(self) -> Chunk | None:
        """The next frames; ``None``: there is nothing new, or it can't be had just now."""
        corrupt = 0
        while True:
            # Before the read: a segment that has a successor by then is whole.
            following = self._has_following()
            chunk, rest_bytes = self._read_here(following)
            if chunk is not None:
                return Chunk(chunk.frames, chunk.end, chunk.corrupt + corrupt, chunk.missing)
            if not (following and self._move_on()):
                break
            corrupt += rest_bytes > 0
        if corrupt and self._position is not None:
            return Chunk([], self._position, corrupt, 0)
        return None

    def commit(self, end: Position) -> None:
        """Everything before ``end`` is acknowledged.

        Needs no space but for a source's first, so a full disk does not stop what empties it. Where
        it can't be written it is kept in memory: a restart then sends more again.
        """
        self._position = end
        document = {
            "segment": end.segment,
            "offset": end.offset,
            "next_sequence": end.next_sequence,
        }
        content = json.dumps(document).encode().ljust(CHECKPOINT_BYTES)
        try:
            _write_small(self.folder / CHECKPOINT, content)
        except OSError as exc:
            log.warning("%s: the checkpoint can't be written: %s", self.source, exc)

    def lag_bytes(self, sizes: Mapping[int, int] | None = None) -> int:
        """Bytes that were written and not yet shipped, of ``sizes`` by first sequence."""
        if sizes is None:
            sizes = {first: self._path(first).stat().st_size for first in self._segments()}
        at = self._position
        if at is None:
            return sum(sizes.values())
        here = max(0, sizes.get(at.segment, 0) - at.offset)
        return here + sum(size for first, size in sizes.items() if first > at.segment)

    def oldest(self, sizes: Mapping[int, int]) -> Frame | None:
        """The first frame that is not shipped, of segments that measure ``sizes``."""
        at = Position(-1, 0, 0) if self._position is None else self._position
        for first in sorted(sizes):
            offset = at.offset if first == at.segment else 0
            if first < at.segment or sizes[first] <= offset:
                continue
            with suppress(FileNotFoundError), self._path(first).open("rb") as file:
                for length in (OLDEST_BYTES, MAX_FRAME_BYTES):
                    file.seek(offset)
                    frames, _, _ = decode_frames(file.read(length))
                    if frames:
                        return frames[0]
            return None
        return None

    def is_exhausted(self) -> bool:
        """Whether no whole frame is left, nor a segment to look for one."""
        at = self._position
        more = any(at is None or first > at.segment for first in self._list())
        return not more and self.read() is None

    def rest(self) -> bytes:
        """What lies behind the checkpoint in its segment."""
        at = self._position
        if at is None or not self._is_open(at) or self._fd is None:
            return b""
        return os.pread(self._fd, MAX_FRAME_BYTES, at.offset)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _read_here(self, following: bool) -> tuple[Chunk | None, int]:
        """The frames of the segment where the checkpoint lies; without any, how many bytes are
        left in it."""
        at = self._position
        if at is None or not self._is_open(at) or self._fd is None:
            return None, 0
        size = os.fstat(self._fd).st_size
        if size <= at.offset:
            return None, 0
        place = (at.segment, at.offset, size, following)
        if self._barren is not None and self._barren[0] == place:
            return None, self._barren[1]
        data = os.pread(self._fd, READ_BYTES, at.offset)
        if len(data) == READ_BYTES:
            data += os.pread(self._fd, MAX_FRAME_BYTES, at.offset + READ_BYTES)
        frames, stopped, problem = decode_frames(data)
        corrupt = 0
        # Skip to the next sound frame, if one is there already; else wait for one. A length
        # that passes over sound frames is damage too, though it looks like a torn tail.
        resume = resume_offset(data, stopped) if stopped < len(data) else None
        if resume is not None:
            stopped, corrupt = resume, 1
        elif problem is not None and following:
            stopped, corrupt = len(data), 1
        if not frames and corrupt == 0:
            self._barren = (place, len(data))
            return None, len(data)
        expected, missing = at.next_sequence, 0
        for frame in frames:
            missing += max(0, frame.sequence - expected)
            expected = max(expected, frame.sequence + 1)
        end = Position(at.segment, at.offset + stopped, expected)
        return Chunk(frames, end, corrupt, missing), 0

    def _is_open(self, at: Position) -> bool:
        if self._fd is None:
            with suppress(FileNotFoundError):
                self._fd = os.open(self._path(at.segment), os.O_RDONLY | os.O_CLOEXEC)
        return self._fd is not None

    def _has_following(self) -> bool:
        segments = self._segments()
        at = self._position
        return bool(segments) and (at is None or segments[-1] > at.segment)

    def _move_on(self) -> bool:
        """Lay the checkpoint at the beginning of the next segment, and remove those before it.

        ``False``: somebody is just dropping segments; it is tried again with the next read.
        """
        with drop_lock(self._log_dir) as mine:
            if not mine:
                return False
            at = self._position
            segments = self._list()
            later = [s for s in segments if at is None or s > at.segment]
            if not later:
                return False
            self.close()
            self.commit(Position(later[0], 0, 0 if at is None else at.next_sequence))
            for first in segments:
                if first < later[0]:
                    self._path(first).unlink()
            return True

    def _segments(self) -> list[int]:
        """Listed anew only when the folder has changed."""
        try:
            changed_ns = os.stat(self.folder).st_mtime_ns
        except FileNotFoundError:
            return []  # The folder was deleted; its emitter makes it again.
        if changed_ns != self._listed_ns:
            self._listed = self._list()
            settled = time.time_ns() - changed_ns > SETTLED_NS
            self._listed_ns = changed_ns if settled else -1
        return self._listed

    def _list(self) -> list[int]:
        try:
            names = [first_sequence_of(name) for name in os.listdir(self.folder)]
        except FileNotFoundError:
            return []
        return sorted(n for n in names if n is not None)

    def _load(self) -> Position | None:
        path = self.folder / CHECKPOINT
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            numbers = [saved[name] for name in ("segment", "offset", "next_sequence")]
            if not all(type(n) is int and n >= 0 for n in numbers):
                raise ValueError(f"segment, offset, next_sequence are {numbers}")
            return Position(*numbers)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as exc:
            raise MeteringError(
                f"{path}: not a checkpoint: {exc}. Remove it to ship the source from its "
                "beginning again; what was shipped before is recognised and not counted twice"
            ) from exc

    def _path(self, first_sequence: int) -> Path:
        return self.folder / segment_name(first_sequence)


def _write_small(path: Path, content: bytes) -> None:
    """In place, for that needs no space; within one block, so it is there whole or not at all."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        temporary = path.with_name(f"{path.name}.new")
        temporary.write_bytes(content)
        temporary.replace(path)
        return
    try:
        os.pwrite(fd, content, 0)
    finally:
        os.close(fd)

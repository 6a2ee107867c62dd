"""Reads one source's segments from where the last acknowledged send ended."""

from __future__ import annotations

import json
import os
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

CHECKPOINT = "shipped.json"
READ_BYTES = 4 * 1024**2


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
    """

    frames: list[Frame]
    end: Position
    corrupt: int
    missing: int


class SourceReader:
    """One source's folder. Reading changes nothing; ``commit`` moves the checkpoint."""

    def __init__(self, folder: Path, source: str) -> None:
        self.source = source
        self._folder = folder
        self._position = self._load()

    def _load(self) -> Position | None:
        path = self._folder / CHECKPOINT
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

    def _segments(self) -> list[int]:
        try:
            names = [first_sequence_of(p) for p in self._folder.iterdir()]
        except FileNotFoundError:
            return []  # The folder was deleted; its emitter makes it again.
        return sorted(n for n in names if n is not None)

    def lag_bytes(self) -> int:
        """Bytes that were written and not yet shipped."""
        lag = 0
        for first in self._segments():
            size = self._path(first).stat().st_size
            if self._position is None or first > self._position.segment:
                lag += size
            elif first == self._position.segment:
                lag += max(0, size - self._position.offset)
        return lag

    def read(self) -> Chunk | None:
        """The next frames; ``None``: there is nothing new."""
        segments = self._segments()
        if not segments:
            return None
        at = self._position
        if at is None:
            at = Position(segments[0], 0, 0)
        if at.segment not in segments:
            later = [s for s in segments if s > at.segment]
            if not later:
                return None
            at = Position(later[0], 0, at.next_sequence)
        following = next((s for s in segments if s > at.segment), None)
        return self._read_at(at, following)

    def _read_at(self, at: Position, following: int | None) -> Chunk | None:
        with self._path(at.segment).open("rb") as file:
            file.seek(at.offset)
            data = file.read(READ_BYTES)
            if len(data) == READ_BYTES:
                data += file.read(MAX_FRAME_BYTES)
        frames, stopped, problem = decode_frames(data)
        corrupt = 0
        # Skip to the next sound frame, if one is there already; else wait for one. A length
        # that passes over sound frames is damage too, though it looks like a torn tail.
        resume = resume_offset(data, stopped) if stopped < len(data) else None
        if resume is not None:
            stopped, corrupt = resume, 1
        elif problem is not None and following is not None:
            stopped, corrupt = len(data), 1
        ends = not frames and corrupt == 0
        if ends and following is not None:
            torn = 1 if stopped < len(data) else 0
            return Chunk([], Position(following, 0, at.next_sequence), torn, 0)
        if ends:
            return None
        expected, missing = at.next_sequence, 0
        for frame in frames:
            missing += max(0, frame.sequence - expected)
            expected = max(expected, frame.sequence + 1)
        return Chunk(frames, Position(at.segment, at.offset + stopped, expected), corrupt, missing)

    def commit(self, end: Position) -> None:
        """Everything before ``end`` is acknowledged. Whole segments before it are removed."""
        temporary = self._folder / f"{CHECKPOINT}.new"
        document = {
            "segment": end.segment,
            "offset": end.offset,
            "next_sequence": end.next_sequence,
        }
        temporary.write_text(json.dumps(document), encoding="utf-8")
        os.replace(temporary, self._folder / CHECKPOINT)
        self._position = end
        for first in self._segments():
            if first < end.segment:
                self._path(first).unlink()

    def _path(self, first_sequence: int) -> Path:
        return self._folder / segment_name(first_sequence)

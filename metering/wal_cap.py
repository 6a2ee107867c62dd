"""The usage log's files: who holds what, and which segments go when the log is at its cap.

The domain touches files in two places, so that several processes do it in one way: here, for the
server and the shipper both drop, and on the occupancy board (:mod:`metering.occupancy_file`).
Three locks, all ``flock``, so that a death releases them:

- ``writer.lock`` in a source's folder, shared: its emitter lives and may write to its last segment;
- the log's folder itself, the drop lock: held while segments are dropped, and while the shipper
  moves its checkpoint on to another segment;
- ``shipper.lock`` in the log's folder: one shipper. Its age says when the shipper last looked.

Whole segments are dropped, the oldest first, but never one that is being written, nor the one in
which a checkpoint lies: some of it may be on its way. So each batch is either sent or dropped.

A drop is three steps, and each can be the last one of a process that is killed: rename ``N.wal`` to
``N.dropped``; count what it holds; write the count over its beginning and cut the rest. Nothing
needs space, so it works on a full disk. Whoever holds that lock next does what is left to do.
The shipper adds the counts to its own and removes the files.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from metering.errors import MeteringError
from metering.wal import (
    LOSS_BYTES,
    Loss,
    decode_loss,
    encode_loss,
    first_sequence_of,
    loss_of,
    segment_name,
)

MAX_BYTES = 1024**3
CHECKPOINT = "shipped.json"
UNWRITTEN = "unwritten"
"""In a source's folder: one frame with the emitter's own count of what it could not write."""
WRITER_LOCK = "writer.lock"
SHIPPER_LOCK = "shipper.lock"
DROPPED_SUFFIX = ".dropped"
TENDED_S = 5.0
"""A shipper that has not looked for so long is taken for dead or frozen."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of the log; ``modified_ns`` is the time of its last frame."""

    first_sequence: int
    size_bytes: int
    modified_ns: int


@dataclass(slots=True)
class SourceFiles:
    """What lies in a source's folder; ``segments`` in the order of their sequences."""

    segments: list[Segment] = field(default_factory=list)
    dropped: list[Path] = field(default_factory=list)


def max_bytes_of(env: Mapping[str, str]) -> int:
    """``METER_LOG_MAX_BYTES``: what all sources of this host may take up together.

    Raises:
        MeteringError: it is no whole number above 0.
    """
    text = env.get("METER_LOG_MAX_BYTES") or str(MAX_BYTES)
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise MeteringError(f"METER_LOG_MAX_BYTES={text!r} is no number of bytes above 0")
    return int(text)


def survey(log_dir: Path) -> dict[Path, SourceFiles]:
    """Every source's folder below ``log_dir``, with what lies in it just now."""
    found: dict[Path, SourceFiles] = {}
    _survey(os.fspath(log_dir), found)
    return found


def size_bytes(files: Iterable[SourceFiles]) -> int:
    """What the segments take up; a dropped one no longer counts."""
    return sum(segment.size_bytes for source in files for segment in source.segments)


def is_tended(log_dir: Path, now_s: float) -> bool:
    """Whether a shipper has looked at the log lately, and so keeps it at its cap."""
    try:
        return abs(now_s - os.stat(log_dir / SHIPPER_LOCK).st_mtime) < TENDED_S
    except OSError:
        return False


@contextmanager
def drop_lock(log_dir: Path) -> Iterator[bool]:
    """``False``: another process has it, or the folder is away. Nobody waits, for its holder may
    be frozen."""
    try:
        fd = os.open(log_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _try_lock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)


def hold_writer_lock(folder: Path) -> int | None:
    """A descriptor that holds the lock until it is closed; ``None``: not to be had just now.

    Raises:
        OSError: the folder is away, or there is no space for the file.
    """
    path = folder / WRITER_LOCK
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    with suppress(OSError):
        # It may have been removed, with its folder, between the two calls.
        if _try_lock(fd, fcntl.LOCK_SH) and os.stat(path).st_ino == os.fstat(fd).st_ino:
            return fd
    os.close(fd)
    return None


@contextmanager
def writer_is_gone(folder: Path) -> Iterator[bool]:
    """While this is held no writer can begin. A folder without the lock's file is of an unknown
    writer, which is taken to live."""
    try:
        fd = os.open(folder / WRITER_LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _try_lock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)


def enforce(log_dir: Path, max_bytes: int) -> int:
    """Drop until the log is at its cap or nothing may be dropped; how many segments went."""
    if size_bytes(survey(log_dir).values()) <= max_bytes:
        return 0
    with drop_lock(log_dir) as mine:
        if not mine:
            return 0
        files = survey(log_dir)
        for dropped in (path for of in files.values() for path in of.dropped):
            settle_drop(dropped)  # Its dropper may have died half-way.
        excess = size_bytes(files.values()) - max_bytes
        went = 0
        for folder, segment in _oldest_first(files):
            if excess <= 0:
                break
            if is_free(folder, segment, files[folder]):
                with suppress(FileNotFoundError):
                    went += _remove(folder, segment.first_sequence)
                excess -= segment.size_bytes
        return went


def is_free(folder: Path, segment: Segment, files: SourceFiles) -> bool:
    """Whether nobody writes to the segment, and none of it may be on its way."""
    try:
        if segment.first_sequence == _checkpoint_segment(folder):
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False  # What was sent is not known.
    if segment is not files.segments[-1]:
        return True
    with writer_is_gone(folder) as gone:
        return gone


def _remove(folder: Path, first_sequence: int) -> bool:
    """Whether it was dropped; a segment before the checkpoint is shipped, and no loss."""
    shipped_before = _checkpoint_segment(folder)
    if shipped_before is not None and first_sequence < shipped_before:
        (folder / segment_name(first_sequence)).unlink()
        return False
    drop(folder, first_sequence)
    return True


def _checkpoint_segment(folder: Path) -> int | None:
    """``None``: nothing of this source was ever sent."""
    try:
        return int(json.loads((folder / CHECKPOINT).read_bytes())["segment"])
    except FileNotFoundError:
        return None


def drop(folder: Path, first_sequence: int) -> Loss:
    """To be called with the drop lock held."""
    path = folder / segment_name(first_sequence)
    dropped = path.with_suffix(DROPPED_SUFFIX)
    path.rename(dropped)
    return settle_drop(dropped)


def settle_drop(dropped: Path) -> Loss:
    """Count what a dropped segment holds, unless that was done, and give its space back.

    To be called with the drop lock held.
    """
    with dropped.open("r+b") as file:
        loss = decode_loss(file.read(LOSS_BYTES))
        if loss is None:
            file.seek(0)
            loss = loss_of(file.read())
            os.pwrite(file.fileno(), encode_loss(loss), 0)
        file.truncate(LOSS_BYTES)
    return loss


def read_unwritten(folder: Path) -> Loss:
    """What the emitter of this source has counted as not written, since it began."""
    try:
        found = decode_loss((folder / UNWRITTEN).read_bytes())
    except OSError:
        return Loss()
    return Loss() if found is None else found


def _oldest_first(files: Mapping[Path, SourceFiles]) -> list[tuple[Path, Segment]]:
    every = [(folder, segment) for folder, of in files.items() for segment in of.segments]
    return sorted(every, key=lambda e: (e[1].modified_ns, e[1].first_sequence))


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _survey(folder: str, found: dict[Path, SourceFiles]) -> None:
    files, is_source = SourceFiles(), False
    with suppress(OSError), os.scandir(folder) as entries:  # it may be removed meanwhile
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _survey(entry.path, found)
            elif entry.name == WRITER_LOCK:
                is_source = True
            elif entry.name.endswith(DROPPED_SUFFIX):
                files.dropped.append(Path(entry.path))
            elif (first := first_sequence_of(entry.name)) is not None:
                with suppress(FileNotFoundError):
                    stat = entry.stat()
                    files.segments.append(Segment(first, stat.st_size, stat.st_mtime_ns))
    if is_source or files.segments or files.dropped:
        files.segments.sort(key=lambda s: s.first_sequence)
        found[Path(folder)] = files

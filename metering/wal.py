"""The usage log's framing: how batches lie in a file between the server and the shipper.

One folder per model instance, ``<log_dir>/<source>/``, with append-only segments named after the
first sequence that they may hold. A frame is written by one ``write``, so that a crash leaves at
most one incomplete frame, at the end::

    length u32 | crc32 u32 | sequence u64 | payload        (little-endian)

``length`` counts the payload's bytes; ``crc32`` covers the sequence and the payload.
A loss is noted in a frame of fixed length, which can be written over what lies there already, and
so on a disk that is full. Nothing here reads or writes a file: the functions speak about bytes and
names; ``metering.wal_cap`` has the files.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal

from metering.errors import MeteringError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUFFIX = ".wal"
MAX_FRAME_BYTES = 16 * 1024**2

_HEADER = struct.Struct("<IIQ")
_SEQUENCE = struct.Struct("<Q")
_CRC_FROM = 8
_OBJECT = ord("{")
_BELOW_2_53 = 0x20
"""For the seventh byte of a sequence; the eighth is 0."""
_NOTHING = -(2**62)
_FIRST_BLOCK_BYTES = 1024
_BLOCK_BYTES = 64 * 1024
HEADER_BYTES = _HEADER.size
MAX_PAYLOAD_BYTES = MAX_FRAME_BYTES - HEADER_BYTES
MAX_SEQUENCE = 2**53
EARNED_PER_BYTE = 64
CANDIDATE_COST = 1024
"""Bytes of checksums; a candidate costs at least as much time as so many."""
UNLIKELY_EARNED_PER_BYTE = 16
UNLIKELY_COST = 4096
"""For what does not begin as a JSON object does: one in 256 bytes at most is looked at for long."""
LOSS_BYTES = 160
_LOSS_MARK = "usage_log_loss"


@dataclass(frozen=True, slots=True)
class Frame:
    """One record; ``end_offset`` is where the next one begins in the buffer."""

    sequence: int
    payload: bytes
    end_offset: int


@dataclass(frozen=True, slots=True)
class Problem:
    """The bytes at ``offset`` are no frame and never will be one."""

    offset: int
    reason: Literal["insane-length", "bad-checksum"]
    detail: str


@dataclass(frozen=True, slots=True)
class Loss:
    """Batches that are in no segment any more, or never were, and the requests in them.

    ``bytes`` is what the dropped segments measured; ``unreadable`` counts places in them that held
    no sound frame.
    """

    batches: int = 0
    requests: int = 0
    bytes: int = 0
    unreadable: int = 0

    def __add__(self, other: Loss) -> Loss:
        return Loss(
            self.batches + other.batches,
            self.requests + other.requests,
            self.bytes + other.bytes,
            self.unreadable + other.unreadable,
        )


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a whole segment holds.

    ``keep_bytes`` is the length to cut the file to before appending to it: only a torn tail lies
    behind it. ``last_sequence`` is the highest sound one, ``None`` where no frame is sound.
    """

    keep_bytes: int
    last_sequence: int | None
    problems: tuple[Problem, ...]


def encode_frame(sequence: int, payload: bytes) -> bytes:
    """One frame as bytes.

    Raises:
        MeteringError: the payload is empty or makes a frame above ``MAX_FRAME_BYTES``, or the
            sequence is not a u64.
    """
    if not 0 < len(payload) <= MAX_PAYLOAD_BYTES:
        raise MeteringError(
            f"payload of {len(payload)} bytes: a frame holds 1 to {MAX_PAYLOAD_BYTES}"
        )
    if not 0 <= sequence < 2**64:
        raise MeteringError(f"sequence={sequence} is not a u64")
    crc = zlib.crc32(payload, zlib.crc32(_SEQUENCE.pack(sequence)))
    return _HEADER.pack(len(payload), crc, sequence) + payload


def decode_frames(
    buf: bytes | memoryview, offset: int = 0
) -> tuple[list[Frame], int, Problem | None]:
    """The sound frames from ``offset`` on, where they end, and what stopped them.

    ``None`` as the problem means "no more for now": the buffer ends, perhaps within a frame. In a
    segment that has a successor such a rest is a torn tail and stays one. After a problem,
    ``resume_offset(buf, problem.offset)`` finds the next sound frame.
    """
    view = memoryview(buf)
    frames: list[Frame] = []
    while len(view) - offset >= HEADER_BYTES:
        length, crc, sequence = _HEADER.unpack_from(view, offset)
        if not 0 < length <= MAX_PAYLOAD_BYTES:
            return frames, offset, Problem(offset, "insane-length", f"length={length}")
        end = offset + HEADER_BYTES + length
        if end > len(view):
            break
        if zlib.crc32(view[offset + _CRC_FROM : end]) != crc:
            detail = f"sequence={sequence} length={length} crc32={crc:#010x}"
            return frames, offset, Problem(offset, "bad-checksum", detail)
        frames.append(Frame(sequence, bytes(view[offset + HEADER_BYTES : end]), end))
        offset = end
    return frames, offset, None


def resume_offset(buf: bytes | memoryview, offset: int) -> int | None:
    """The first offset behind ``offset`` at which a whole sound frame lies, if there is one.

    Takes time in proportion to the bytes, whatever they are. Each byte that is passed earns a
    credit, and each candidate spends some, its length and a fixed part. Where it is spent, as among
    bytes that were made to look like the beginnings of long frames, candidates are passed over.
    A candidate that does not begin as what is logged does, a JSON object, may spend only a part of
    the credit, so that those that do can be looked at among any garbage.
    """
    import numpy as np  # noqa: PLC0415  # damage alone needs it

    data = buf if isinstance(buf, bytes) else bytes(buf)
    room = unlikely_room = MAX_FRAME_BYTES
    for starts, lengths in _blocks_of_candidates(data, offset + 1):
        is_likely = np.frombuffer(data, np.uint8)[starts + HEADER_BYTES] == _OBJECT
        passed = starts - offset
        costs = CANDIDATE_COST + lengths
        unlikely_costs = np.where(is_likely, 0, UNLIKELY_COST + lengths)
        needs = costs - EARNED_PER_BYTE * passed
        unlikely_needs = unlikely_costs - UNLIKELY_EARNED_PER_BYTE * passed
        unlikely_needs[is_likely] = _NOTHING
        columns = (starts, lengths, needs, unlikely_needs, costs, unlikely_costs)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for start, length, need, unlikely_need, cost, unlikely_cost in rows:
            if need > room or unlikely_need > unlikely_room:
                continue
            room -= cost
            unlikely_room -= unlikely_cost
            if _is_frame(data, start, length):
                return int(start)
    return None


def candidates(data: bytes, offset: int) -> Iterator[tuple[int, int]]:
    """Where from ``offset`` on a frame may begin, and its length.

    The highest byte of a length below 16 MiB is 0, and a sequence is below 2**53, as in every
    event; a frame ends within the data.
    """
    for starts, lengths in _blocks_of_candidates(data, offset):
        yield from zip(starts.tolist(), lengths.tolist(), strict=True)


def _blocks_of_candidates(
    data: bytes, offset: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Their starts and lengths, block by block; the first blocks are small, for mostly the next
    frame is near."""
    import numpy as np  # noqa: PLC0415

    behind = len(data) - HEADER_BYTES
    found = np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
    block_bytes = _FIRST_BLOCK_BYTES
    while offset < behind:
        end = min(offset + block_bytes, behind)
        length_3, sequence_6, sequence_7 = (found[offset + n : end + n] for n in (3, 14, 15))
        starts = offset + np.flatnonzero(
            (length_3 == 0) & (sequence_7 == 0) & (sequence_6 < _BELOW_2_53)
        )
        low, middle, high = (found[starts + n].astype(np.int64) for n in range(3))
        lengths = low | middle << 8 | high << 16
        fits = (lengths > 0) & (lengths <= MAX_PAYLOAD_BYTES) & (starts + lengths <= behind)
        yield starts[fits], lengths[fits]
        offset, block_bytes = end, min(2 * block_bytes, _BLOCK_BYTES)


def inspect_segment(buf: bytes | memoryview) -> Inspection:
    """Read a segment to its end, over damage in its midst, for whoever wants to append to it.

    A rest is a torn tail only if no sound frame lies behind it; damage is never cut away.
    """
    keep_bytes, last, problems = 0, -1, []
    offset: int | None = 0
    while offset is not None:
        frames, stopped, problem = decode_frames(buf, offset)
        last = max([last, *(f.sequence for f in frames)])
        offset = resume_offset(buf, stopped) if stopped < len(buf) else None
        if problem is None and offset is not None:
            problem = Problem(stopped, "insane-length", "the length passes over sound frames")
        if problem is not None:
            problems.append(problem)
        keep_bytes = stopped if problem is None else len(buf)
    return Inspection(keep_bytes, last if last >= 0 else None, tuple(problems))


def requests_in(payload: bytes) -> int:
    """How many requests a batch's JSON holds; what is no batch holds none."""
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return 0
    requests = document.get("requests") if isinstance(document, dict) else None
    return len(requests) if isinstance(requests, list) else 0


def loss_of(buf: bytes | memoryview) -> Loss:
    """What is lost with a segment. A torn tail is no batch: its requests were not answered."""
    batches = requests = unreadable = 0
    offset: int | None = 0
    while offset is not None:
        frames, stopped, problem = decode_frames(buf, offset)
        batches += len(frames)
        requests += sum(requests_in(f.payload) for f in frames)
        offset = resume_offset(buf, stopped) if stopped < len(buf) else None
        unreadable += problem is not None or offset is not None
    return Loss(batches, requests, len(buf), unreadable)


def encode_loss(loss: Loss) -> bytes:
    """``LOSS_BYTES`` long, whatever the numbers."""
    document = {_LOSS_MARK: [loss.batches, loss.requests, loss.bytes, loss.unreadable]}
    return encode_frame(0, json.dumps(document).encode().ljust(LOSS_BYTES - HEADER_BYTES))


def decode_loss(buf: bytes | memoryview) -> Loss | None:
    """The loss that ``buf`` begins with; ``None`` where something else lies there."""
    frames, _, _ = decode_frames(memoryview(buf)[:LOSS_BYTES])
    if len(frames) != 1:
        return None
    try:
        numbers = json.loads(frames[0].payload)[_LOSS_MARK]
        if not all(type(n) is int and n >= 0 for n in numbers):
            return None
        return Loss(*numbers)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def segment_name(first_sequence: int) -> str:
    """``00000000000000000042.wal``: names sort as their sequences do."""
    return f"{first_sequence:020d}{SUFFIX}"


def first_sequence_of(segment: PurePath | str) -> int | None:
    """The sequence in a segment's name; ``None`` where the file is no segment."""
    stem, dot, suffix = PurePath(segment).name.rpartition(".")
    if f"{dot}{suffix}" != SUFFIX or len(stem) != 20 or not (stem.isascii() and stem.isdigit()):
        return None
    return int(stem)


def source_folder(log_dir: Path, source: str) -> Path:
    """Where a source's segments lie.

    Raises:
        MeteringError: a part of the source can't be a folder's name, or would leave ``log_dir``.
    """
    parts = source.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise MeteringError(f"source={source!r} can't be a folder below {log_dir}")
    return log_dir.joinpath(*parts)


def source_of(log_dir: Path, segment: Path) -> str:
    """The source whose segment this is; the inverse of ``source_folder``."""
    return segment.parent.relative_to(log_dir).as_posix()


def _is_frame(data: bytes, start: int, length: int) -> bool:
    _, crc, _ = _HEADER.unpack_from(data, start)
    end = start + HEADER_BYTES + length
    return zlib.crc32(memoryview(data)[start + _CRC_FROM : end]) == int(crc)

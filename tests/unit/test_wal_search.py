"""The search for the next sound frame takes work in proportion to the bytes, whatever they are."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from metering import wal
from metering.wal import (
    MAX_FRAME_BYTES,
    candidates,
    encode_frame,
    inspect_segment,
    loss_of,
    resume_offset,
    segment_name,
)
from streams.shipper import reader
from streams.shipper.reader import Position, SourceReader

MIB = 1024**2
SIZE = MIB
HEADER = encode_frame(7, bytes(SIZE // 2))[:16]
TAILS = {
    "zeros": bytes(SIZE),
    "0xFF": b"\xff" * SIZE,
    "a header": HEADER * (SIZE // len(HEADER)),
    "a short header": (encode_frame(7, b"{}")[:16]) * (SIZE // 16),
    "a one and three zeros": b"\1\0\0\0" * (SIZE // 4),
    "a zero and a one": b"\0\1" * (SIZE // 2),
    "random": random.Random(7).randbytes(SIZE),
    "few bits": bytes(random.Random(8).choices((0, 0, 0, 1), k=SIZE)),
}


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The length of each candidate whose checksum was reckoned."""
    lengths: list[int] = []
    is_frame = wal._is_frame

    def count(data: bytes, start: int, length: int) -> bool:
        lengths.append(length)
        return is_frame(data, start, length)

    monkeypatch.setattr(wal, "_is_frame", count)
    return lengths


@pytest.mark.parametrize("tail", TAILS)
def test_no_tail_costs_more_than_its_size_allows(tail: str, checked: list[int]) -> None:
    assert resume_offset(TAILS[tail], 0) is None
    most = MAX_FRAME_BYTES + wal.EARNED_PER_BYTE * SIZE
    assert sum(checked) + wal.CANDIDATE_COST * len(checked) <= most


@pytest.mark.parametrize("tail", TAILS)
def test_of_what_does_not_begin_as_what_is_logged_one_in_256_bytes_is_looked_at(
    tail: str, checked: list[int]
) -> None:
    """Python takes longer for a checksum of few bytes than for the bytes."""
    assert resume_offset(TAILS[tail], 0) is None
    most = MAX_FRAME_BYTES + wal.UNLIKELY_EARNED_PER_BYTE * SIZE
    assert wal.UNLIKELY_COST * len(checked) <= most


def test_a_frame_behind_frames_that_are_all_damaged_is_found() -> None:
    """Each of them has several places that look like a beginning, and one that is likely one."""
    frames = [encode_frame(n, b'{"requests":[1]}' * 20) for n in range(3 * SIZE // 336)]
    damaged = b"".join(frame[:4] + b"\0\0\0\0" + frame[8:] for frame in frames)
    sound = encode_frame(len(frames), b'{"requests":[1]}')
    assert resume_offset(damaged + sound, 0) == len(damaged)


def test_every_place_where_a_frame_may_begin_is_a_candidate() -> None:
    data = random.Random(9).choices((0, 0, 1, 0x1F, 0x20, 255), k=200_000)
    found = list(candidates(bytes(data), 5))
    expected = [
        (n, length)
        for n in range(5, len(data) - 16)
        if (length := int.from_bytes(data[n : n + 4], "little"))
        and length <= wal.MAX_PAYLOAD_BYTES
        and n + 16 + length <= len(data)
        and int.from_bytes(data[n + 8 : n + 16], "little") < wal.MAX_SEQUENCE
    ]
    assert found == expected


@pytest.mark.parametrize("tail", ["zeros", "0xFF"])
def test_a_run_of_one_byte_has_no_candidates(tail: str) -> None:
    assert list(candidates(TAILS[tail], 0)) == []


def test_of_a_run_of_zeros_the_first_three_are_looked_at() -> None:
    found = [start for start, _ in candidates(b"\1" * 9 + bytes(SIZE), 0)]
    assert found == [6, 7, 8]


@pytest.mark.parametrize("tail", TAILS)
def test_frames_behind_garbage_are_found(tail: str) -> None:
    first, *others = [encode_frame(n, b'{"requests":[1]}' * 20) for n in range(3)]
    buf = first + b"\xff" * 16 + TAILS[tail] + b"".join(others)
    found = inspect_segment(buf)
    assert found.last_sequence == 2
    assert found.keep_bytes == len(buf)
    assert loss_of(buf).batches >= 2


@pytest.mark.parametrize("zeros", [0, 1, 2, 3, 4, 5, 100])
def test_a_frame_right_behind_zeros_is_found(zeros: int) -> None:
    frame = encode_frame(5, b"payload")
    assert resume_offset(b"\xff" * 9 + bytes(zeros) + frame, 0) == 9 + zeros


def test_a_shipper_searches_a_tail_once_until_it_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []
    monkeypatch.setattr(reader, "resume_offset", lambda *at: searched.append(at))
    path = tmp_path / segment_name(0)
    path.write_bytes(bytes(SIZE))
    source = SourceReader(tmp_path, "s")
    source.commit(Position(0, 0, 0))
    assert [source.read() for _ in range(9)] == [None] * 9
    assert len(searched) == 1
    with path.open("ab") as file:
        file.write(b"more")
    assert source.read() is None
    assert len(searched) == 2

"""The usage log's framing: its layout and its limits."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from metering.errors import MeteringError
from metering.wal import (
    HEADER_BYTES,
    LOSS_BYTES,
    MAX_FRAME_BYTES,
    MAX_PAYLOAD_BYTES,
    decode_frames,
    decode_loss,
    encode_frame,
    first_sequence_of,
    source_folder,
)


def test_the_layout_is_length_crc_sequence_payload_in_little_endian() -> None:
    sequence = (258).to_bytes(8, "little")
    crc = zlib.crc32(sequence + b"abc").to_bytes(4, "little")
    assert encode_frame(258, b"abc") == b"\x03\0\0\0" + crc + sequence + b"abc"


def test_the_largest_frame_is_16_mib_and_one_byte_more_is_refused() -> None:
    frame = encode_frame(0, bytes(MAX_PAYLOAD_BYTES))
    assert len(frame) == MAX_FRAME_BYTES == 16 * 1024**2
    assert decode_frames(frame)[1] == MAX_FRAME_BYTES
    with pytest.raises(MeteringError, match=str(MAX_PAYLOAD_BYTES + 1)):
        encode_frame(0, bytes(MAX_PAYLOAD_BYTES + 1))


@pytest.mark.parametrize(("sequence", "payload"), [(0, b""), (-1, b"x"), (2**64, b"x")])
def test_what_no_frame_can_hold_is_refused(sequence: int, payload: bytes) -> None:
    with pytest.raises(MeteringError):
        encode_frame(sequence, payload)


def test_a_length_above_the_limit_is_reported_before_its_bytes_have_come() -> None:
    frames, next_offset, problem = decode_frames(b"\xff" * HEADER_BYTES)
    assert frames == []
    assert next_offset == 0
    assert problem is not None
    assert problem.reason == "insane-length"
    assert "4294967295" in problem.detail


def test_a_swapped_sequence_is_seen() -> None:
    frame = bytearray(encode_frame(1, b"payload"))
    frame[8] = 2
    problem = decode_frames(bytes(frame))[2]
    assert problem is not None
    assert problem.reason == "bad-checksum"


@pytest.mark.parametrize(
    "name", ["1.wal", "x" * 20 + ".wal", "0" * 20 + ".tmp", "0" * 20, "²" * 20 + ".wal"]
)
def test_other_files_are_no_segments(name: str) -> None:
    assert first_sequence_of(name) is None


@pytest.mark.parametrize("source", ["", "/etc", "a//b", "a/../b", "..", "a/\0"])
def test_a_source_can_not_leave_the_log_folder(source: str) -> None:
    with pytest.raises(MeteringError):
        source_folder(Path("log"), source)


@pytest.mark.parametrize(
    "numbers", [[1, 2, 3, 4, 5], [1, "2", 3, 4], [1, -2, 3, 4], [1, 2.0], "1234", {"a": 1}, None, 7]
)
def test_a_loss_that_is_written_otherwise_is_none(numbers: object) -> None:
    """Of a later version, perhaps; who opens the log must not fail of it."""
    document = json.dumps({"usage_log_loss": numbers}).encode()
    assert decode_loss(encode_frame(0, document.ljust(LOSS_BYTES - HEADER_BYTES))) is None

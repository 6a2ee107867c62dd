"""Laws of the usage log's framing, whatever is written and whatever is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.wal import (
    decode_frames,
    encode_frame,
    first_sequence_of,
    inspect_segment,
    resume_offset,
    segment_name,
    source_folder,
    source_of,
)

sequences = st.integers(0, 2**53 - 1)
payloads = st.binary(min_size=1, max_size=200)
records = st.lists(st.tuples(sequences, payloads), max_size=8)
names = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/"), min_size=1
)


def encoded(rows: list[tuple[int, bytes]]) -> bytes:
    return b"".join(encode_frame(sequence, payload) for sequence, payload in rows)


@given(records)
def test_what_was_written_is_read_back_in_order(rows: list[tuple[int, bytes]]) -> None:
    buf = encoded(rows)
    frames, next_offset, problem = decode_frames(buf)
    assert [(f.sequence, f.payload) for f in frames] == rows
    assert (next_offset, problem) == (len(buf), None)


@given(records, st.data())
def test_a_file_cut_anywhere_gives_whole_frames_and_then_goes_on(
    rows: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    buf = encoded(rows)
    cut = data.draw(st.integers(0, len(buf)))
    first, next_offset, problem = decode_frames(buf[:cut])
    assert problem is None
    assert next_offset <= cut
    rest, end, problem = decode_frames(memoryview(buf), next_offset)
    assert [(f.sequence, f.payload) for f in first + rest] == rows
    assert (end, problem) == (len(buf), None)


@given(records, st.data())
def test_one_flipped_bit_never_yields_a_record_that_was_not_written(
    rows: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    rows = [*rows, (1, b"x")]
    buf = bytearray(encoded(rows))
    bit = data.draw(st.integers(0, len(buf) * 8 - 1))
    buf[bit // 8] ^= 1 << bit % 8
    frames, next_offset, _ = decode_frames(bytes(buf))
    got = [(f.sequence, f.payload) for f in frames]
    assert got == rows[: len(got)]
    assert len(got) < len(rows)
    assert next_offset <= bit // 8


@given(records, payloads, st.binary(max_size=64), records)
def test_sound_frames_behind_damage_are_found(
    before: list[tuple[int, bytes]],
    payload: bytes,
    garbage: bytes,
    after: list[tuple[int, bytes]],
) -> None:
    bad = bytearray(encode_frame(7, payload))
    bad[-1] ^= 0xFF
    buf = encoded(before) + bytes(bad) + garbage + encoded(after)
    frames, next_offset, problem = decode_frames(buf)
    assert problem is not None
    assert problem.offset == next_offset == len(encoded(before))
    assert len(frames) == len(before)
    found = resume_offset(buf, problem.offset)
    if after:
        assert found == len(encoded(before)) + len(bad) + len(garbage)
    else:
        assert found is None


@given(records, st.data())
def test_inspection_cuts_a_torn_tail_and_nothing_else(
    rows: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    whole = encoded(rows)
    torn = encode_frame(9, data.draw(payloads))
    tail = torn[: data.draw(st.integers(0, len(torn) - 1))]
    found = inspect_segment(whole + tail)
    assert found.keep_bytes == len(whole)
    assert found.problems == ()
    assert found.last_sequence == (max(s for s, _ in rows) if rows else None)


@given(records, st.tuples(sequences, payloads))
def test_inspection_never_cuts_damage_that_sound_frames_follow(
    rows: list[tuple[int, bytes]], last: tuple[int, bytes]
) -> None:
    over_the_end = (2**24 - 17).to_bytes(4, "little") + bytes(range(1, 13))
    buf = encoded(rows) + over_the_end + encode_frame(*last)
    found = inspect_segment(buf)
    assert found.keep_bytes == len(buf)
    assert [p.offset for p in found.problems] == [len(encoded(rows))]
    assert found.last_sequence == max(s for s, _ in [*rows, last])


@given(st.integers(0, 10**20 - 1))
def test_a_segment_name_says_its_sequence(sequence: int) -> None:
    assert first_sequence_of(segment_name(sequence)) == sequence


@given(st.lists(names.filter(lambda n: n not in (".", "..")), min_size=1, max_size=4))
def test_a_source_is_told_from_its_segment(parts: list[str]) -> None:
    source, log_dir = "/".join(parts), Path("log")
    assert source_of(log_dir, source_folder(log_dir, source) / segment_name(0)) == source


@given(st.integers(1, 8))
def test_zeros_are_damage_and_not_records(kilobytes: int) -> None:
    frames, next_offset, problem = decode_frames(bytes(kilobytes * 1024))
    assert (frames, next_offset) == ([], 0)
    assert problem is not None
    with pytest.raises(AttributeError):
        problem.offset = 1  # type: ignore[misc]  # frozen on purpose

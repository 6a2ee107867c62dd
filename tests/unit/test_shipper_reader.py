"""The shipper's reader, over logs that the emitter wrote and over files made by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from metering.errors import MeteringError
from metering.wal import HEADER_BYTES, MAX_PAYLOAD_BYTES, encode_frame, segment_name
from streams.shipper.reader import (
    CHECKPOINT,
    CHECKPOINT_BYTES,
    READ_BYTES,
    Chunk,
    Position,
    SourceReader,
)
from triton_models.emitter.log import UsageLog

Record = tuple[int, bytes]


def reader_of(folder: Path) -> SourceReader:
    return SourceReader(folder, "host/boot/1/tiny_0")


def encoded(*records: Record) -> bytes:
    return b"".join(encode_frame(sequence, payload) for sequence, payload in records)


def segment(folder: Path, first: int, content: bytes) -> Path:
    path = folder / segment_name(first)
    path.write_bytes(content)
    return path


def records_of(chunks: Iterable[Chunk]) -> list[Record]:
    return [(f.sequence, f.payload) for chunk in chunks for f in chunk.frames]


def drain(reader: SourceReader) -> list[Chunk]:
    """Every chunk there is now, each committed."""
    chunks = []
    while (chunk := reader.read()) is not None:
        chunks.append(chunk)
        reader.commit(chunk.end)
        assert len(chunks) < 1_000
    return chunks


def counts(chunks: list[Chunk]) -> tuple[int, int]:
    return sum(c.corrupt for c in chunks), sum(c.missing for c in chunks)


def write(log: UsageLog, *payloads: bytes) -> None:
    for payload in payloads:
        log.append(log.reserve(), payload)


def test_an_empty_folder_has_nothing_to_read_and_no_lag(tmp_path: Path) -> None:
    reader = reader_of(tmp_path)
    assert reader.read() is None
    assert reader.lag_bytes() == 0


def test_what_the_emitter_writes_is_read_in_order_across_rotations(tmp_path: Path) -> None:
    log = UsageLog(tmp_path, segment_bytes=3 * (HEADER_BYTES + 4))
    write(log, *(b"%04d" % n for n in range(10)))
    chunks = drain(reader_of(tmp_path))
    assert records_of(chunks) == [(n, b"%04d" % n) for n in range(10)]
    assert counts(chunks) == (0, 0)


def test_reading_changes_nothing_until_the_commit(tmp_path: Path) -> None:
    write(UsageLog(tmp_path), b"one", b"two")
    reader = reader_of(tmp_path)
    first = reader.read()
    assert first is not None
    assert reader.read() == first
    assert reader_of(tmp_path).read() == first
    reader.commit(first.end)
    assert reader.read() is None
    assert reader_of(tmp_path).read() is None


def test_a_restarted_reader_reads_again_only_what_was_not_committed(tmp_path: Path) -> None:
    log = UsageLog(tmp_path)
    write(log, b"one")
    before = reader_of(tmp_path)
    drain(before)
    write(log, b"two", b"three")
    assert records_of([c for c in [before.read()] if c]) == [(1, b"two"), (2, b"three")]
    after = reader_of(tmp_path)
    assert records_of(drain(after)) == [(1, b"two"), (2, b"three")]


def test_segments_before_the_checkpoint_are_removed_and_the_one_being_written_stays(
    tmp_path: Path,
) -> None:
    log = UsageLog(tmp_path, segment_bytes=HEADER_BYTES + 3)
    write(log, b"one", b"two", b"six")
    reader = reader_of(tmp_path)
    first = reader.read()
    assert first is not None
    reader.commit(first.end)
    assert (tmp_path / segment_name(0)).exists()  # read whole, but a successor was not reached
    drain(reader)
    assert sorted(p.name for p in tmp_path.glob("*.wal")) == [segment_name(2)]
    write(log, b"ten")
    assert records_of(drain(reader)) == [(3, b"ten")]


def test_the_rest_of_a_frame_that_is_still_being_written_is_waited_for(tmp_path: Path) -> None:
    whole = encoded((0, b"one"), (1, b"two"))
    path = segment(tmp_path, 0, whole[:-2])
    reader = reader_of(tmp_path)
    assert records_of(drain(reader)) == [(0, b"one")]
    assert reader.read() is None
    path.write_bytes(whole)
    assert records_of(drain(reader)) == [(1, b"two")]


@pytest.mark.parametrize("kept_bytes", [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 2])
def test_a_torn_tail_with_a_successor_is_left_behind_and_counted(
    tmp_path: Path, kept_bytes: int
) -> None:
    segment(tmp_path, 0, encoded((0, b"one")) + encoded((1, b"lost"))[:kept_bytes])
    segment(tmp_path, 2, encoded((2, b"three")))
    chunks = drain(reader_of(tmp_path))
    assert records_of(chunks) == [(0, b"one"), (2, b"three")]
    assert counts(chunks) == (1, 1)


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 8, HEADER_BYTES, HEADER_BYTES + 4])
@pytest.mark.parametrize("successor", [False, True])
def test_a_damaged_frame_in_the_midst_is_skipped_and_counted_and_no_other(
    tmp_path: Path, at: int, successor: bool
) -> None:
    """Whichever byte it is: of the length, too, where a frame then seems to reach too far."""
    records = [(n, b"payload-%d" % n) for n in range(4)]
    damaged = bytearray(encoded(*records))
    damaged[len(encoded(records[0])) + at] ^= 0x40
    segment(tmp_path, 0, bytes(damaged))
    expected = [r for r in records if r[0] != 1]
    if successor:
        segment(tmp_path, 4, encoded((4, b"next")))
        expected.append((4, b"next"))
    chunks = drain(reader_of(tmp_path))
    assert records_of(chunks) == expected
    assert counts(chunks) == (1, 1)


def test_damage_at_the_end_is_waited_on_until_something_sound_follows(tmp_path: Path) -> None:
    bad = bytearray(encoded((1, b"two")))
    bad[-1] ^= 1
    path = segment(tmp_path, 0, encoded((0, b"one")) + bytes(bad))
    reader = reader_of(tmp_path)
    assert counts(drain(reader)) == (0, 0)
    assert reader.read() is None
    with path.open("ab") as file:
        file.write(encoded((2, b"three")))
    chunks = drain(reader)
    assert records_of(chunks) == [(2, b"three")]
    assert counts(chunks) == (1, 1)


def test_a_segment_of_rubbish_does_not_stop_the_ones_behind_it(tmp_path: Path) -> None:
    segment(tmp_path, 0, b"\xff" * 100)
    segment(tmp_path, 3, encoded((3, b"three")))
    chunks = drain(reader_of(tmp_path))
    assert records_of(chunks) == [(3, b"three")]
    assert counts(chunks) == (1, 3)


def test_missing_sequences_are_counted_within_segments_between_them_and_at_the_start(
    tmp_path: Path,
) -> None:
    segment(tmp_path, 2, encoded((2, b"a"), (5, b"b")))  # 0, 1, 3 and 4 are not there
    segment(tmp_path, 9, encoded((9, b"c")))  # nor are 6, 7 and 8
    assert counts(drain(reader_of(tmp_path))) == (0, 7)


def test_missing_sequences_are_counted_once_over_a_restart(tmp_path: Path) -> None:
    path = segment(tmp_path, 0, encoded((0, b"a"), (2, b"b")))
    assert counts(drain(reader_of(tmp_path))) == (0, 1)
    with path.open("ab") as file:
        file.write(encoded((5, b"c")))
    assert counts(drain(reader_of(tmp_path))) == (0, 2)


def test_a_segment_that_was_deleted_before_it_was_read_shows_as_missing(tmp_path: Path) -> None:
    segment(tmp_path, 0, encoded((0, b"a")))
    reader = reader_of(tmp_path)
    drain(reader)
    (tmp_path / segment_name(0)).unlink()
    assert reader.read() is None
    segment(tmp_path, 4, encoded((4, b"b")))
    chunks = drain(reader)
    assert records_of(chunks) == [(4, b"b")]
    assert counts(chunks) == (0, 3)


def test_a_deleted_folder_is_nothing_to_read_and_what_is_made_anew_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    log = UsageLog(folder)
    write(log, b"one")
    reader = reader_of(folder)
    drain(reader)
    shutil.rmtree(folder)
    assert reader.read() is None
    assert reader.lag_bytes() == 0
    write(log, b"two")
    assert records_of(drain(reader)) == [(1, b"two")]


def test_lag_is_the_bytes_that_are_not_yet_committed(tmp_path: Path) -> None:
    log = UsageLog(tmp_path, segment_bytes=2 * (HEADER_BYTES + 3))
    write(log, b"one", b"two", b"six")
    reader = reader_of(tmp_path)
    frame_bytes = HEADER_BYTES + 3
    assert reader.lag_bytes() == 3 * frame_bytes
    chunk = reader.read()
    assert chunk is not None
    assert reader.lag_bytes() == 3 * frame_bytes
    reader.commit(chunk.end)
    assert reader.lag_bytes() == frame_bytes
    assert reader_of(tmp_path).lag_bytes() == frame_bytes
    drain(reader)
    assert reader.lag_bytes() == 0


def test_files_that_are_no_segments_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not mine")
    (tmp_path / "7.wal").write_text("not a segment's name")
    write(UsageLog(tmp_path, segment_bytes=1), b"one", b"two")
    assert records_of(drain(reader_of(tmp_path))) == [(0, b"one"), (1, b"two")]
    assert (tmp_path / "notes.txt").exists()
    assert (tmp_path / "7.wal").exists()


def test_a_segment_longer_than_one_read_is_read_whole(tmp_path: Path) -> None:
    large = [(n, bytes([n + 1]) * (READ_BYTES // 2 + n)) for n in range(3)]
    largest = [(3, b"\x09" * MAX_PAYLOAD_BYTES), (4, b"after")]
    segment(tmp_path, 0, encoded(*large, *largest))
    chunks = drain(reader_of(tmp_path))
    assert records_of(chunks) == large + largest
    assert counts(chunks) == (0, 0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"7",
        b'{"segment": 0, "offset": 0}',
        b'{"segment": "0", "offset": 0, "next_sequence": 0}',
        b'{"segment": 0, "offset": -1, "next_sequence": 0}',
        b'{"segment": 0, "offset": null, "next_sequence": 0}',
        b'{"segment": 0, "offset": true, "next_sequence": 0}',
    ],
)
def test_a_broken_checkpoint_is_an_error_that_names_it_and_what_to_do(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(MeteringError, match="Remove it") as error:
        reader_of(tmp_path)
    assert str(tmp_path / CHECKPOINT) in str(error.value)


def test_a_checkpoint_says_where_the_next_read_begins_and_keeps_its_size(
    tmp_path: Path,
) -> None:
    write(UsageLog(tmp_path), b"one", b"two")
    drain(reader_of(tmp_path))
    assert json.loads((tmp_path / CHECKPOINT).read_text()) == {
        "segment": 0,
        "offset": 2 * (HEADER_BYTES + 3),
        "next_sequence": 2,
    }
    assert (tmp_path / CHECKPOINT).stat().st_size == CHECKPOINT_BYTES
    assert not list(tmp_path.glob("*.new"))


def test_a_crash_within_the_commit_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    write(UsageLog(tmp_path), b"one")
    drain(reader_of(tmp_path))
    (tmp_path / f"{CHECKPOINT}.new").write_text('{"segm')  # as a kill in mid-write leaves it
    reader = reader_of(tmp_path)
    assert reader.read() is None
    reader.commit(Position(0, HEADER_BYTES + 3, 1))
    assert reader_of(tmp_path).read() is None

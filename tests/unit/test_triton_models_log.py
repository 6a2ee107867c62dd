"""The write-ahead log's writer, on a real disk: crashes, full disks, rotation."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from metering.errors import MeteringError
from metering.wal import HEADER_BYTES, decode_frames, encode_frame, segment_name
from triton_models.emitter.log import UsageLog


def records(folder: Path) -> list[tuple[int, bytes]]:
    found = []
    for segment in sorted(folder.glob("*.wal")):
        frames, _, problem = decode_frames(segment.read_bytes())
        assert problem is None, problem
        found += [(f.sequence, f.payload) for f in frames]
    return found


def write(log: UsageLog, *payloads: bytes) -> None:
    for payload in payloads:
        log.append(log.reserve(), payload)


@contextmanager
def files_no_longer_than(size_bytes: int) -> Iterator[None]:
    """The kernel cuts writes off there, as a disk that is full does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("fsync", ["never", "rotate", "always"])
def test_what_is_appended_can_be_read_before_the_log_is_closed(tmp_path: Path, fsync: str) -> None:
    log = UsageLog(tmp_path / "a" / "b", fsync=fsync)  # type: ignore[arg-type]  # from parametrize
    write(log, b"one", b"two")
    assert records(tmp_path / "a" / "b") == [(0, b"one"), (1, b"two")]


def test_segments_rotate_before_they_grow_too_large_and_are_named_by_their_first(
    tmp_path: Path,
) -> None:
    frame_bytes = HEADER_BYTES + 10
    log = UsageLog(tmp_path, segment_bytes=2 * frame_bytes)
    write(log, *(b"%010d" % i for i in range(5)))
    assert [p.name for p in sorted(tmp_path.iterdir())] == [segment_name(n) for n in (0, 2, 4)]
    assert [s for s, _ in records(tmp_path)] == [0, 1, 2, 3, 4]


def test_a_frame_larger_than_a_segment_gets_one_of_its_own(tmp_path: Path) -> None:
    write(UsageLog(tmp_path, segment_bytes=20), b"x" * 100, b"y" * 100)
    assert records(tmp_path) == [(0, b"x" * 100), (1, b"y" * 100)]


@pytest.mark.parametrize("torn_bytes", [1, HEADER_BYTES, HEADER_BYTES + 3])
def test_a_torn_tail_is_cut_and_the_sequence_goes_on(tmp_path: Path, torn_bytes: int) -> None:
    write(UsageLog(tmp_path), b"one", b"two")
    (segment,) = tmp_path.iterdir()
    with segment.open("ab") as file:
        file.write(encode_frame(2, b"three")[:torn_bytes])
    write(UsageLog(tmp_path), b"four")
    assert records(tmp_path) == [(0, b"one"), (1, b"two"), (2, b"four")]


def test_a_damaged_segment_is_left_as_it_is_and_a_new_one_begun(tmp_path: Path) -> None:
    write(UsageLog(tmp_path), b"one", b"two", b"three")
    (segment,) = tmp_path.iterdir()
    damaged = bytearray(segment.read_bytes())
    damaged[HEADER_BYTES] ^= 1
    segment.write_bytes(damaged)
    write(UsageLog(tmp_path), b"four")
    assert segment.read_bytes() == bytes(damaged)
    assert decode_frames((tmp_path / segment_name(3)).read_bytes())[0][0].payload == b"four"


def test_a_segment_with_nothing_sound_in_it_does_not_stop_the_log(tmp_path: Path) -> None:
    (tmp_path / segment_name(7)).write_bytes(b"\xff" * 64)
    write(UsageLog(tmp_path), b"x")
    assert decode_frames((tmp_path / segment_name(8)).read_bytes())[0][0].sequence == 8


def test_a_full_disk_loses_one_record_whole_and_shows_as_a_gap(tmp_path: Path) -> None:
    log = UsageLog(tmp_path)
    write(log, b"one")
    with files_no_longer_than(HEADER_BYTES + 3 + 10), pytest.raises(OSError, match="10 of 19"):
        write(log, b"two")
    write(log, b"three")
    assert records(tmp_path) == [(0, b"one"), (2, b"three")]


def test_a_deleted_folder_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    log = UsageLog(folder)
    write(log, b"one")
    (folder / segment_name(0)).unlink()
    folder.rmdir()
    write(log, b"two")
    assert records(folder) == [(1, b"two")]


def test_a_folder_that_can_not_be_made_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("in the way")
    log = UsageLog(tmp_path / "source")
    with pytest.raises(OSError, match="source"):
        log.reserve()
    (tmp_path / "source").unlink()
    write(log, b"one")
    assert records(tmp_path / "source") == [(0, b"one")]


def test_an_unknown_way_to_sync_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MeteringError, match="sometimes"):
        UsageLog(tmp_path, fsync="sometimes")  # type: ignore[arg-type]  # on purpose

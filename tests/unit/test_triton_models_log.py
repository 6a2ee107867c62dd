"""The write-ahead log's writer, on a real disk: crashes, full disks, rotation."""

from __future__ import annotations

import json
import os
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from metering.errors import MeteringError
from metering.wal import (
    HEADER_BYTES,
    LOSS_BYTES,
    Loss,
    decode_frames,
    decode_loss,
    encode_frame,
    segment_name,
)
from metering.wal_cap import SHIPPER_LOCK, read_unwritten, size_bytes, survey, writer_is_gone
from triton_models.emitter.log import LOOK_EVERY_NS, UsageLog


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


@pytest.mark.parametrize("fsync", ["never", "rotate", "interval", "always"])
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
    assert [p.name for p in sorted(tmp_path.glob("*.wal"))] == [segment_name(n) for n in (0, 2, 4)]
    assert [s for s, _ in records(tmp_path)] == [0, 1, 2, 3, 4]


def test_a_frame_larger_than_a_segment_gets_one_of_its_own(tmp_path: Path) -> None:
    write(UsageLog(tmp_path, segment_bytes=20), b"x" * 100, b"y" * 100)
    assert records(tmp_path) == [(0, b"x" * 100), (1, b"y" * 100)]


@pytest.mark.parametrize("torn_bytes", [1, HEADER_BYTES, HEADER_BYTES + 3])
def test_a_torn_tail_is_cut_and_the_sequence_goes_on(tmp_path: Path, torn_bytes: int) -> None:
    write(UsageLog(tmp_path), b"one", b"two")
    (segment,) = tmp_path.glob("*.wal")
    with segment.open("ab") as file:
        file.write(encode_frame(2, b"three")[:torn_bytes])
    write(UsageLog(tmp_path), b"four")
    assert records(tmp_path) == [(0, b"one"), (1, b"two"), (2, b"four")]


def test_a_damaged_segment_is_left_as_it_is_and_a_new_one_begun(tmp_path: Path) -> None:
    write(UsageLog(tmp_path), b"one", b"two", b"three")
    (segment,) = tmp_path.glob("*.wal")
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


def test_a_deleted_folder_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triton_models.emitter.log.LOOK_EVERY_NS", 0)
    folder = tmp_path / "source"
    log = UsageLog(folder)
    write(log, b"one")
    shutil.rmtree(folder)
    write(log, b"two")
    assert records(folder) == [(1, b"two")]


def test_a_deleted_segment_takes_along_what_comes_before_the_next_look(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    log = UsageLog(folder)
    write(log, b"one")
    begun_ns = time.monotonic_ns()
    shutil.rmtree(folder)
    written = 0
    while not folder.exists():
        write(log, b"more")
        written += 1
    assert time.monotonic_ns() - begun_ns <= 10 * LOOK_EVERY_NS
    assert records(folder) == [(written, b"more")]  # those before it are a gap


def test_a_folder_that_can_not_be_made_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("in the way")
    log = UsageLog(tmp_path / "source")
    with pytest.raises(OSError, match="source"):
        write(log, b"lost")
    (tmp_path / "source").unlink()
    write(log, b"one")
    assert records(tmp_path / "source") == [(1, b"one")]  # the lost one is a gap
    assert read_unwritten(tmp_path / "source").batches == 1


def test_an_unknown_way_to_sync_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MeteringError, match="sometimes"):
        UsageLog(tmp_path, fsync="sometimes")  # type: ignore[arg-type]  # on purpose


def batch(requests: int) -> bytes:
    return json.dumps({"requests": [{}] * requests}).encode()


def test_requests_that_could_not_be_written_are_counted_at_once_and_on_the_full_disk(
    tmp_path: Path,
) -> None:
    log = UsageLog(tmp_path)
    write(log, batch(1))
    with files_no_longer_than(LOSS_BYTES):
        for payload in (batch(40), batch(50)):
            with pytest.raises(OSError, match=r"bytes were written|File too large"):
                write(log, payload)
        assert read_unwritten(tmp_path) == Loss(batches=2, requests=90)
    write(log, batch(3))
    assert [s for s, _ in records(tmp_path)] == [0, 3]


def test_a_count_that_could_not_be_written_is_written_with_the_next_batch(tmp_path: Path) -> None:
    log = UsageLog(tmp_path)
    with files_no_longer_than(0):
        for _ in range(3):
            with pytest.raises(OSError, match="File too large"):
                log.append(log.reserve(), batch(4), requests=7)
        assert read_unwritten(tmp_path) == Loss()
    write(log, batch(1))
    assert read_unwritten(tmp_path) == Loss(batches=3, requests=21)


def test_a_batch_that_never_came_to_append_can_be_counted_too(tmp_path: Path) -> None:
    log = UsageLog(tmp_path)
    log.reserve()
    log.lose(requests=5)
    log.close()
    assert read_unwritten(tmp_path) == Loss(batches=1, requests=5)
    again = UsageLog(tmp_path)  # the same source, as after a restart
    again.reserve()
    again.lose(requests=6)
    assert read_unwritten(tmp_path) == Loss(batches=2, requests=11)


def test_a_payload_that_fits_no_frame_is_counted(tmp_path: Path) -> None:
    log = UsageLog(tmp_path)
    with pytest.raises(MeteringError):
        log.append(log.reserve(), b"", requests=2)
    assert read_unwritten(tmp_path) == Loss(batches=1, requests=2)


def test_a_segment_that_met_a_full_disk_is_left_so_that_it_can_be_shipped_and_go(
    tmp_path: Path,
) -> None:
    log = UsageLog(tmp_path)
    write(log, b"one")
    with files_no_longer_than(HEADER_BYTES + 3), pytest.raises(OSError, match="File too large"):
        write(log, b"two")
    write(log, b"three")
    assert [p.name for p in sorted(tmp_path.glob("*.wal"))] == [segment_name(0), segment_name(2)]


@pytest.fixture
def syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The thread of each sync of a file of this test: the threads of logs that other tests have
    left open sync theirs meanwhile, in the same process."""
    by: list[str] = []

    def fdatasync(fd: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{fd}")).is_relative_to(tmp_path):
            by.append(threading.current_thread().name)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    return by


@pytest.mark.parametrize(
    ("fsync", "synced", "closed"), [("never", 0, 0), ("rotate", 0, 1), ("always", 20, 21)]
)
def test_how_often_the_disk_is_waited_for(
    tmp_path: Path, syncs: list[str], fsync: str, synced: int, closed: int
) -> None:
    log = UsageLog(tmp_path, fsync=fsync)  # type: ignore[arg-type]  # from parametrize
    write(log, *[b"x"] * 20)
    assert len(syncs) == synced
    log.close()
    assert len(syncs) == closed


def test_with_an_interval_the_disk_is_waited_for_now_and_then_and_never_by_who_appends(
    tmp_path: Path, syncs: list[str]
) -> None:
    log = UsageLog(tmp_path, fsync="interval", fsync_ms=100)
    write(log, *[b"x"] * 200)
    deadline = time.monotonic() + 10
    while not syncs:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert set(syncs) == {"usage-log-sync"}
    assert len(syncs) < 100
    write(log, b"the last")
    synced = len(syncs)
    log.close()
    assert len(syncs) > synced


def test_full_segments_are_synced_and_closed_beside_the_appending_thread(
    tmp_path: Path, syncs: list[str]
) -> None:
    log = UsageLog(tmp_path, segment_bytes=HEADER_BYTES + 1, fsync="interval", fsync_ms=60_000)
    write(log, *[b"x"] * 10)
    assert syncs == []
    descriptors = len(os.listdir("/proc/self/fd"))
    log.close()
    assert len(syncs) >= 10
    assert len(os.listdir("/proc/self/fd")) <= descriptors - 10


def test_a_sync_that_fails_loses_no_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fdatasync(fd: int) -> None:
        raise OSError("the disk is away")

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    write(UsageLog(tmp_path, fsync="always"), b"one", b"two")
    assert records(tmp_path) == [(0, b"one"), (1, b"two")]
    assert read_unwritten(tmp_path) == Loss()


def test_without_a_shipper_the_emitter_keeps_the_cap(tmp_path: Path) -> None:
    log = UsageLog(tmp_path / "a", log_dir=tmp_path, max_bytes=6400)
    for _ in range(400):
        write(log, batch(3))
    log.close()
    assert size_bytes(survey(tmp_path).values()) <= 6400 + 100  # one segment is being written
    dropped = [decode_loss(p.read_bytes()) for p in tmp_path.rglob("*.dropped")]
    batches = sum(loss.batches for loss in dropped if loss is not None)
    assert batches + len(records(tmp_path / "a")) == 400
    assert sum(loss.requests for loss in dropped if loss is not None) == 3 * batches


def test_with_a_shipper_at_work_the_emitter_leaves_the_cap_to_it(tmp_path: Path) -> None:
    (tmp_path / SHIPPER_LOCK).touch()
    log = UsageLog(tmp_path / "a", log_dir=tmp_path, max_bytes=6400)
    write(log, *[batch(3)] * 400)
    log.close()
    assert len(records(tmp_path / "a")) == 400


def test_segments_are_small_beside_the_cap(tmp_path: Path) -> None:
    log = UsageLog(tmp_path, max_bytes=64 * 200)
    write(log, *[b"x" * 84] * 8)
    assert {p.stat().st_size for p in tmp_path.glob("*.wal")} == {200}


def test_a_writer_holds_its_lock_until_it_is_closed(tmp_path: Path) -> None:
    log = UsageLog(tmp_path)
    write(log, b"one")
    with writer_is_gone(tmp_path) as gone:
        assert not gone
    log.close()
    with writer_is_gone(tmp_path) as gone:
        assert gone
        with pytest.raises(OSError, match="held"):  # a folder that is just being removed
            UsageLog(tmp_path).open()
    log = UsageLog(tmp_path)
    write(log, b"two")
    assert records(tmp_path) == [(0, b"one"), (1, b"two")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("METER_LOG_MAX_BYTES", "1 GiB"),
        ("METER_LOG_MAX_BYTES", "0"),
        ("METER_LOG_FSYNC", "sometimes"),
        ("METER_LOG_FSYNC_MS", "-1"),
        ("METER_LOG_SEGMENT_BYTES", "²"),
    ],
)
def test_a_setting_that_can_not_be_used_is_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(MeteringError, match=name):
        UsageLog.from_env(tmp_path, "a/1", {name: value})


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    env = {"METER_LOG_SEGMENT_BYTES": "50", "METER_LOG_FSYNC": "interval", "METER_LOG_FSYNC_MS": ""}
    log = UsageLog.from_env(tmp_path, "a/1", env)
    write(log, b"x" * 20, b"y" * 20)
    assert len(list((tmp_path / "a" / "1").glob("*.wal"))) == 2
    log.close()

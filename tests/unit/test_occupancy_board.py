"""The occupancy board in one process: each instance is a board of its own, as in the server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which
from types import SimpleNamespace

import pytest

from metering import occupancy_board, occupancy_file
from metering.errors import MeteringError
from metering.occupancy import SLOTS
from metering.occupancy_board import Board, DeviceReading, Held, read_boards
from metering.occupancy_file import BoardFile, board_path
from metering.occupancy_layout import COPY_BYTES, FILE_BYTES, STATE_AT
from metering.wal_cap import survey

DEVICE = "GPU-1b2c/3"


class Host:
    """A log folder; ``opened`` boards are closed at the end."""

    def __init__(self, log_dir: Path, way: str) -> None:
        self.log_dir = log_dir
        self.way = way
        self.path = board_path(log_dir, DEVICE)
        self.opened: list[Board] = []

    def board(self, name: str = "one", accelerator: str = "L4", device: str = DEVICE) -> Board:
        board = Board.open(self.log_dir, device, accelerator, f"host/boot/{name}", f"model-{name}")
        self.opened.append(board)
        return board

    def read(self) -> DeviceReading:
        (reading,) = read_boards(self.log_dir)
        return reading

    def holder(self) -> BoardFile:
        """Somebody who has the lock and does nothing with it."""
        file = BoardFile.open(self.path)
        assert file.lock(10**9)
        return file


@pytest.fixture(params=["mapped", "by calls"])
def host(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    """``mapped``: what is put there at every batch is put through a mapping."""
    if request.param == "by calls":
        monkeypatch.setattr(occupancy_file, "mapping", None)
    elif occupancy_file.mapping is None and which("cc") is None and which("gcc") is None:
        pytest.skip("no C compiler: boards do without mappings")
    host = Host(tmp_path, request.param)
    yield host
    for board in host.opened:
        board.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine may be busy; where the lock is free, it shall be had."""
    monkeypatch.setattr(occupancy_board, "PATIENCE_NS", 10**9)
    monkeypatch.setattr(occupancy_board, "REOPEN_EVERY_NS", 0)
    monkeypatch.setattr(occupancy_board, "LOOK_EVERY_NS", 0)
    monkeypatch.setattr(occupancy_board, "LOOK_ALONE_EVERY_NS", 0)


def share_of(board: Board) -> int:
    held = board.end()
    assert held.share_ns is not None
    return held.share_ns


@pytest.mark.usefixtures("patient")
def test_two_instances_share_the_time_in_which_both_ran(host: Host) -> None:
    one, two = host.board("one"), host.board("two")
    began_ns = one.begin()
    time.sleep(0.01)
    both_ns = two.begin()
    time.sleep(0.01)
    first = one.end()
    time.sleep(0.01)
    second = two.end()
    assert first.share_ns is not None
    assert second.share_ns is not None
    assert first.share_ns + second.share_ns == second.end_ns - began_ns
    assert abs(first.share_ns - (both_ns - began_ns) - (first.end_ns - both_ns) / 2) <= 1
    reading = host.read()
    assert reading.busy_ns == reading.given_ns == second.end_ns - began_ns
    assert reading.lost_ns == 0
    assert reading.busy_ns + reading.idle_ns == reading.wall_ns
    assert reading.executions == 2
    assert reading.batch_ns == first.end_ns - began_ns + second.end_ns - both_ns


@pytest.mark.usefixtures("patient")
def test_a_reading_says_who_is_there_and_what_runs(host: Host) -> None:
    one, two = host.board("one", "L4"), host.board("two", "H100")
    one.begin()
    share_ns = share_of(one)
    since_ns = two.begin()
    reading = host.read()
    assert (reading.device, reading.accelerator) == (DEVICE, "H100")
    assert reading.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert reading.running == 1
    assert reading.busy_ns == reading.given_ns + reading.read_at_ns - since_ns
    first, second = reading.instances
    assert (first.source, first.model) == ("host/boot/one", "model-one")
    assert (first.executions, first.busy_ns, first.running_since_ns) == (1, share_ns, None)
    assert (second.executions, second.busy_ns, second.running_since_ns) == (0, 0, since_ns)
    assert reading.wall_ns >= first.wall_ns >= second.wall_ns > 0


@pytest.mark.usefixtures("patient")
def test_a_slot_is_used_again_and_the_device_keeps_what_it_counted(host: Host) -> None:
    one = host.board("one")
    one.begin()
    share_ns = share_of(one)
    one.close()
    assert host.read().instances == ()
    host.board("two")
    reading = host.read()
    assert [i.source for i in reading.instances] == ["host/boot/two"]
    assert (reading.given_ns, reading.executions) == (share_ns, 1)


@pytest.mark.usefixtures("patient")
def test_what_runs_when_its_board_is_closed_is_lost(host: Host) -> None:
    board = host.board()
    board.begin()
    board.close()
    reading = host.read()
    assert reading.lost_ns == reading.busy_ns > 0
    assert (reading.running, reading.executions, reading.given_ns) == (0, 0, 0)
    assert board.begin() > 0
    assert board.end().share_ns is None


@pytest.mark.usefixtures("patient")
def test_beside_others_a_begin_needs_no_lock(host: Host) -> None:
    board, other = host.board("one"), host.board("two")
    board.begin()
    before_ns = share_of(board)
    holder = host.holder()
    began_ns = board.begin()
    holder.close()
    other.begin()
    other.end()
    held = board.end()
    assert held.share_ns is not None
    assert began_ns + held.share_ns < held.end_ns
    busy_ns = before_ns + held.end_ns - began_ns
    assert host.read().busy_ns == host.read().given_ns == busy_ns


@pytest.mark.usefixtures("patient")
def test_alone_an_end_needs_no_lock(host: Host) -> None:
    board = host.board()
    began_ns = board.begin()
    holder = host.holder()
    held = board.end()
    assert held == Held(began_ns, held.end_ns, held.end_ns - began_ns)
    assert host.read().busy_ns == held.share_ns
    holder.close()
    reading = host.read()
    assert (reading.busy_ns, reading.given_ns) == (held.share_ns, held.share_ns)
    assert (reading.executions, reading.running) == (1, 0)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("other_works", [False, True])
def test_who_comes_in_the_midst_of_a_batch_shares_what_is_left_of_it(
    host: Host, other_works: bool
) -> None:
    board = host.board("one")
    began_ns = board.begin()
    time.sleep(0.01)
    other = host.board("two")
    since_ns = other.begin() if other_works else 0
    time.sleep(0.01)
    held = board.end()
    assert (held.start_ns, held.share_ns is None) == (began_ns, False)
    assert held.share_ns is not None
    alone_ns = held.end_ns - began_ns
    together_ns = held.end_ns - since_ns if other_works else 0
    assert abs(alone_ns - together_ns / 2 - held.share_ns) <= 1
    theirs_ns = share_of(other) if other_works else 0
    reading = host.read()
    assert reading.busy_ns == reading.given_ns == held.share_ns + theirs_ns
    board.begin()
    assert share_of(board) > 0


@pytest.mark.usefixtures("patient")
def test_a_batch_that_never_ended_is_lost_when_the_next_one_begins(host: Host) -> None:
    board = host.board()
    began_ns = board.begin()
    again_ns = board.begin()
    share_ns = share_of(board)
    reading = host.read()
    assert 0 < reading.lost_ns <= again_ns - began_ns
    assert reading.given_ns == share_ns
    assert reading.executions == 1


def test_nobody_waits_for_a_lock_that_is_not_to_be_had(host: Host) -> None:
    board = host.board()
    holder = host.holder()
    took_ns = []
    for _ in range(20):
        asked_ns = time.monotonic_ns()
        began_ns = board.begin()
        held = board.end()
        took_ns.append(time.monotonic_ns() - asked_ns)
        assert held.share_ns is None
        assert held.end_ns >= began_ns >= asked_ns
    assert sorted(took_ns)[10] < 5_000_000
    holder.close()


@pytest.mark.usefixtures("patient")
def test_batches_without_a_share_are_counted_with_the_next_that_has_one(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(occupancy_board, "PATIENCE_NS", 0)
    board = host.board()
    holder = host.holder()
    walls_ns = 0
    for _ in range(3):
        began_ns = board.begin()
        walls_ns += board.end().end_ns - began_ns
    holder.close()
    began_ns = board.begin()
    held = board.end()
    (instance,) = host.read().instances
    assert (instance.executions, instance.unshared) == (4, 3)
    assert instance.batch_ns == walls_ns + held.end_ns - began_ns
    assert instance.busy_ns == held.share_ns


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("next_one", ["itself", "another instance", "a reader"])
def test_an_end_that_found_the_lock_taken_is_made_good_as_of_then(
    host: Host, monkeypatch: pytest.MonkeyPatch, next_one: str
) -> None:
    board, other = host.board("one"), host.board("two")
    began_ns = board.begin()
    holder = host.holder()
    monkeypatch.setattr(board, "_patience_ns", 0)
    held = board.end()
    assert held.share_ns is None
    holder.close()
    time.sleep(0.05)
    if next_one != "a reader":
        follower = board if next_one == "itself" else other
        follower.begin()
        assert share_of(follower) < 50_000_000
    reading = host.read()
    assert reading.lost_ns == held.end_ns - began_ns
    assert reading.busy_ns == reading.given_ns + reading.lost_ns
    assert reading.running == 0
    assert host.read().lost_ns == reading.lost_ns


@pytest.mark.usefixtures("patient")
def test_a_reader_sees_through_a_lock_that_is_held(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = host.board()
    began_ns = board.begin()
    holder = host.holder()
    monkeypatch.setattr(board, "_patience_ns", 0)
    held = board.end()
    assert host.read().busy_ns == held.end_ns - began_ns
    holder.close()


@pytest.mark.usefixtures("patient")
def test_a_torn_copy_leaves_the_one_before(host: Host) -> None:
    board = host.board()
    board.begin()
    share_of(board)
    assert (host.read().running, host.read().executions) == (0, 1)
    damage_newest(host.path)  # What was put beside the state is taken up once more.
    assert (host.read().running, host.read().executions) == (0, 1)
    other = host.board("two")
    other.begin()
    share_of(other)
    board.begin()
    share_of(board)
    reading = host.read()
    assert reading.executions == 3
    assert reading.busy_ns == reading.given_ns + reading.lost_ns


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("damage", ["both copies", "the beginning", "cut short", "emptied"])
def test_a_damaged_board_is_told_left_out_and_begun_anew(
    host: Host, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    board = host.board()
    board.begin()
    share_of(board)
    with host.path.open("r+b") as file:
        if damage == "both copies":
            for copy in (0, 1):
                file.seek(STATE_AT + copy * COPY_BYTES + 40)
                file.write(b"\xff\xff")
        elif damage == "the beginning":
            file.write(b"not a board")
        else:
            file.truncate(3000 if damage == "cut short" else 0)
    assert read_boards(host.log_dir) == []
    assert str(host.path) in caplog.text
    fresh = host.board("two")
    for _ in range(3):
        fresh.begin()
        share_of(fresh)
        board.begin()
        board.end()
    reading = host.read()
    assert len(reading.instances) == 2
    assert reading.busy_ns == reading.given_ns + reading.lost_ns


@pytest.mark.parametrize("left_bytes", [0, 100])
def test_a_file_that_is_cut_under_a_batch_costs_shares_until_it_is_made_anew(
    host: Host, monkeypatch: pytest.MonkeyPatch, left_bytes: int
) -> None:
    board = host.board()
    board.begin()
    os.truncate(host.path, left_bytes)
    board.end()
    monkeypatch.setattr(occupancy_board, "PATIENCE_NS", 10**9)
    monkeypatch.setattr(occupancy_board, "REOPEN_EVERY_NS", 0)
    monkeypatch.setattr(occupancy_board, "LOOK_ALONE_EVERY_NS", 0)
    for _ in range(3):
        board.begin()
        last = board.end()
    assert last.share_ns is not None
    reading = host.read()
    assert reading.busy_ns == reading.given_ns + reading.lost_ns


@pytest.mark.usefixtures("patient")
def test_a_board_that_was_removed_is_made_again(host: Host) -> None:
    board = host.board()
    board.begin()
    share_of(board)
    host.path.unlink()
    for _ in range(3):
        board.begin()
        last = board.end()
    assert last.share_ns is not None
    assert [i.source for i in host.read().instances] == ["host/boot/one"]


@pytest.mark.usefixtures("patient")
def test_a_board_of_another_boot_is_begun_anew(host: Host, tmp_path: Path) -> None:
    other_boot = tmp_path / "boot_id"
    other_boot.write_text("another\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(occupancy_file, "BOOT_ID", other_boot)
        board = host.board()
        board.begin()
        share_of(board)
        board.close()
        assert host.read().boot == "another"
    assert read_boards(host.log_dir) == []
    host.board()
    assert host.read().executions == 0


def test_each_device_has_a_board_of_its_own(host: Host) -> None:
    names = ["gpu0", "gpu1", "MIG 1g.5gb/..", "ü" * 128, "ü" * 127 + "xy"]
    for name in names:
        host.board(device=name)
    assert sorted(r.device for r in read_boards(host.log_dir)) == sorted(names)


def test_more_instances_than_slots_are_refused_by_name(host: Host) -> None:
    boards = [host.board(str(n)) for n in range(SLOTS)]
    with pytest.raises(MeteringError, match=r"device='GPU-1b2c/3' has 64 instances"):
        host.board("too many")
    boards[17].close()
    host.board("in its place")
    assert len(host.read().instances) == SLOTS


@pytest.mark.parametrize(
    "given", [{"device": ""}, {"accelerator": "x" * 257}, {"name": "ü" * 124}], ids=str
)
def test_a_name_that_does_not_fit_is_refused_by_name(host: Host, given: dict[str, str]) -> None:
    with pytest.raises(MeteringError, match=r"(device|accelerator|source)='"):
        host.board(**given)


@pytest.mark.usefixtures("patient")
def test_the_file_has_its_space_from_the_start(host: Host) -> None:
    """So a disk that fills up later takes nothing from it."""
    board = host.board()
    made = host.path.stat()
    assert made.st_size == FILE_BYTES
    assert made.st_blocks * 512 >= FILE_BYTES
    for _ in range(5):
        board.begin()
        share_of(board)
    after = host.path.stat()
    assert (after.st_size, after.st_blocks) == (made.st_size, made.st_blocks)


@pytest.mark.parametrize("call", ["preadv", "pwrite"])
@pytest.mark.usefixtures("patient")
def test_a_disk_that_fails_costs_a_share_and_never_a_batch(
    host: Host, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    board = host.board()
    board.begin()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        fails = call == "pwrite" and host.way == "by calls"
        assert (board.end().share_ns is None) == fails
        assert board.begin() > 0
        assert board.end().share_ns is None
    board.begin()
    share_of(board)
    reading = host.read()
    assert reading.busy_ns == reading.given_ns + reading.lost_ns


@pytest.mark.usefixtures("patient")
def test_a_file_that_can_not_be_mapped_is_written_by_calls(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(occupancy_file, "mapping", SimpleNamespace(Mapping=failing))
    board = host.board()
    board.begin()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing)
        assert board.end().share_ns is None
    board.begin()
    share_of(board)


def test_the_boards_are_no_sources_of_the_usage_log(host: Host) -> None:
    host.board()
    assert survey(host.log_dir) == {}


def test_a_folder_without_boards_has_no_readings(tmp_path: Path) -> None:
    assert read_boards(tmp_path / "nowhere") == []


def failing(*args: object) -> int:
    raise OSError("the disk is gone")


def damage_newest(path: Path) -> None:
    """As by a death in the middle of a write."""
    content = path.read_bytes()
    at = max((STATE_AT, STATE_AT + COPY_BYTES), key=sequence_in(content))
    with path.open("r+b") as file:
        file.seek(at + 60)
        file.write(b"\xff" * 8)


def sequence_in(content: bytes) -> Callable[[int], int]:
    return lambda at: int.from_bytes(content[at + 8 : at + 16], "little")

"""The occupancy board between real processes, which are killed and frozen at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from metering.occupancy_board import Board, DeviceReading, read_boards
from metering.overlap import Interval, divide_busy_time, union_ns

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("occupancy_worker.py")
FOR_EVER = 10**9
WITHIN_S = 240.0

HOLDER = """
import os, signal, sys
from pathlib import Path
from metering.occupancy_file import BoardFile, board_path
file = BoardFile.open(board_path(Path(sys.argv[1]), "gpu0"))
assert file.lock(10**10)
print("open", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""

PARENT = """
import os, sys, time
from pathlib import Path
from metering.occupancy_board import Board
board = Board.open(Path(sys.argv[1]), "gpu0", "L4", "host/boot/parent", "model")
board.begin()
child = os.fork()
if child == 0:
    board.begin()
    print(os.getpid(), board.end().share_ns, flush=True)
    time.sleep(600)
time.sleep(600)
"""


class Processes:
    def __init__(self, log_dir: Path) -> None:
        self.log_dir = log_dir
        self.started = list[subprocess.Popen[str]]()

    def start(self, *args: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *map(str, args)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def worker(self, name: str, batches: int = FOR_EVER, patience_ns: int = 10**10) -> Worker:
        process = self.start(WORKER, self.log_dir, name, batches, patience_ns)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        return Worker(process)

    def stop(self) -> None:
        for process in self.started:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


class Worker:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def until_batch(self, *, is_shared: bool) -> None:
        """Reads on to one that has a share, or has none."""
        assert self.process.stdout is not None
        while (json.loads(self.process.stdout.readline())[2] is not None) != is_shared:
            pass

    def batches(self) -> list[tuple[int, int, int | None]]:
        """All that it says until it ends."""
        assert self.process.stdout is not None
        whole, _, _ = self.process.stdout.read().rpartition("\n")
        return [tuple(json.loads(line)) for line in whole.splitlines()]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    yield processes
    processes.stop()


def read(log_dir: Path) -> DeviceReading:
    (reading,) = read_boards(log_dir)
    return reading


def test_shares_of_processes_are_those_of_their_intervals(processes: Processes) -> None:
    workers = [processes.worker(f"w{n}", batches=300) for n in range(4)]
    ran = [batch for worker in workers for batch in worker.batches()]
    assert len(ran) == 1200
    intervals = [Interval(start, end, ("m", n)) for n, (start, end, _) in enumerate(ran)]
    offline = {s.interval.key[1]: s.busy_ns for s in divide_busy_time(intervals)}
    exact = 0
    for n, (start, end, share_ns) in enumerate(ran):
        assert share_ns is not None
        assert 0 <= share_ns <= end - start
        exact += abs(share_ns - offline[n]) <= 1
    assert exact > 0.9 * 1200, "the others: what happened between a stamp and its being written"
    reading = read(processes.log_dir)
    assert reading.busy_ns == reading.given_ns == union_ns(intervals)
    assert reading.given_ns == sum(share_ns or 0 for _, _, share_ns in ran)
    assert (reading.lost_ns, reading.executions, reading.instances) == (0, 1200, ())
    assert reading.batch_ns == sum(end - start for start, end, _ in ran)
    assert reading.batch_ns > reading.busy_ns, "they were to overlap"


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_any_moment_leave_every_nanosecond_given_or_lost(
    processes: Processes, seed: int
) -> None:
    drawn = random.Random(seed)
    alive = [processes.worker(f"w{seed}-{n}") for n in range(3)]
    killed = list[Worker]()
    for n in range(6):
        time.sleep(drawn.random() * 0.2)
        victim = alive.pop(drawn.randrange(len(alive)))
        victim.kill()
        killed.append(victim)
        alive.append(processes.worker(f"w{seed}-{n + 3}"))
    for worker in alive:
        worker.kill()
    told = [batch for worker in (*killed, *alive) for batch in worker.batches()]
    reading = read(processes.log_dir)
    assert (reading.running, reading.instances) == (0, ())
    assert reading.given_ns + reading.lost_ns == reading.busy_ns <= reading.wall_ns
    # Who was killed may have been given a share that it could not tell; each at most one.
    assert 0 <= reading.executions - len(told) <= len(killed) + len(alive)
    told_ns = sum(share_ns or 0 for _, _, share_ns in told)
    assert told_ns <= reading.given_ns
    assert all(share_ns is not None for _, _, share_ns in told)


def test_a_process_that_is_killed_in_its_batch_stops_counting(processes: Processes) -> None:
    """Another instance sees it, with its own next batches; no reader is needed."""
    survivor = Board.open(processes.log_dir, "gpu0", "L4", "host/boot/survivor", "model")
    process = processes.start(
        "-c", PARENT.replace("child = os.fork()", "child = 1"), processes.log_dir
    )
    wait_until_running(processes.log_dir, 1)
    process.kill()
    process.wait()
    time.sleep(0.15)
    survivor.begin()
    survivor.end()
    began_ns = survivor.begin()
    time.sleep(0.02)
    held = survivor.end()
    assert held.share_ns == held.end_ns - began_ns
    survivor.close()
    reading = read(processes.log_dir)
    assert reading.lost_ns > 0
    assert reading.given_ns + reading.lost_ns == reading.busy_ns


def test_a_forked_child_holds_nothing_for_its_parent(processes: Processes) -> None:
    process = processes.start("-c", PARENT, processes.log_dir)
    assert process.stdout is not None
    child, share = process.stdout.readline().split()
    try:
        assert share == "None"
        assert read(processes.log_dir).running == 1
        process.kill()
        process.wait()
        reading = read(processes.log_dir)
        assert (reading.running, reading.instances) == (0, ())
        assert reading.lost_ns == reading.busy_ns > 0
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_nobody_waits_for_a_holder_of_the_lock_that_is_frozen(processes: Processes) -> None:
    board = Board.open(processes.log_dir, "gpu0", "L4", "host/boot/one", "model")
    worker = processes.worker("two", patience_ns=2_000_000)
    holder = processes.start("-c", HOLDER, processes.log_dir)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    for _ in range(40):
        board.begin()
        assert board.end().share_ns is None
    worker.until_batch(is_shared=False)
    assert len(read(processes.log_dir).instances) == 2

    holder.kill()
    holder.wait()
    shared = [held for held in (batch_of(board) for _ in range(200)) if held is not None]
    assert len(shared) > 100
    worker.until_batch(is_shared=True)
    worker.kill()
    board.close()
    reading = read(processes.log_dir)
    assert reading.running == 0
    assert reading.given_ns + reading.lost_ns == reading.busy_ns


def batch_of(board: Board) -> int | None:
    board.begin()
    return board.end().share_ns


def wait_until_running(log_dir: Path, running: int) -> None:
    until_s = time.monotonic() + WITHIN_S
    while read(log_dir).running != running:
        assert time.monotonic() < until_s
        time.sleep(0.01)

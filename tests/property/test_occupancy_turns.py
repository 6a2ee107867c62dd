"""Boards and a reader that take turns on one file, in any order: what they say together.

The clock is the test's own, so that every interval is known.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering import occupancy_board, occupancy_file, occupancy_reading
from metering.occupancy_board import Board, Held, read_boards
from metering.overlap import Interval, divide_busy_time, union_ns


class Clock:
    """In place of ``time``: stands still but for :meth:`pass_`; each look takes a nanosecond.

    ``meanwhile`` is done once, between the next look and what is made of it.
    """

    def __init__(self) -> None:
        self.now_ns = 10**12
        self.meanwhile: Callable[[], None] | None = None

    def monotonic_ns(self) -> int:
        self.now_ns += 1
        looked_ns, meanwhile = self.now_ns, self.meanwhile
        if meanwhile is not None:
            self.meanwhile = None
            self.now_ns += 100
            meanwhile()
        return looked_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)

    def pass_(self, ns: int) -> None:
        self.now_ns += ns


@pytest.fixture(scope="module")
def clock() -> Iterator[Clock]:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        for module in (occupancy_board, occupancy_file, occupancy_reading):
            patch.setattr(module, "time", clock)
        yield clock


@dataclass
class Turns:
    """What has been done, and what the boards have told."""

    log_dir: Path
    boards: dict[int, Board] = field(default_factory=dict)
    running: set[int] = field(default_factory=set)
    held: list[Held] = field(default_factory=list)

    def do(self, *steps: str) -> None:
        """``read``; ``close K``; ``K``: board K is opened, or begins, or ends what it began."""
        for what in steps:
            if what == "read":
                read_boards(self.log_dir)
            elif what.startswith("close"):
                self._close(int(what.split()[1]))
            else:
                self._step(int(what))

    def _step(self, who: int) -> None:
        if who not in self.boards:
            name = f"host/boot/{who}"
            self.boards[who] = Board.open(self.log_dir, "gpu0", "L4", name, "model")
        elif who in self.running:
            self.running.remove(who)
            self.held.append(self.boards[who].end())
        else:
            self.running.add(who)
            self.boards[who].begin()

    def _close(self, who: int) -> None:
        if who not in self.running and who in self.boards:
            self.boards.pop(who).close()

    def is_there(self, what: str) -> bool:
        return what.isdigit() and int(what) in self.boards


what = st.sampled_from(["0", "0", "0", "0", "1", "2", "read", "read", "close 0", "close 1"])
turns = st.lists(
    st.tuples(what, st.sampled_from([0, 1, 7, 1000, 10**6]), st.lists(what, max_size=3)),
    max_size=40,
)


@pytest.mark.parametrize("at_once", [False, True], ids=["in turn", "in the midst of each other"])
@given(turns=turns)
def test_whatever_the_order_every_batch_is_counted_and_every_nanosecond_given(
    clock: Clock, turns: list[tuple[str, int, list[str]]], at_once: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        done = Turns(Path(folder))
        try:
            for what, passes_ns, others in turns:
                clock.pass_(passes_ns)
                if at_once and done.is_there(what):
                    clock.meanwhile = partial(done.do, *(o for o in others if o[-1] != what))
                done.do(what)
            for who in sorted(done.running):
                done.do(str(who))
            readings = read_boards(done.log_dir)
        finally:
            for board in done.boards.values():
                board.close()
    if not readings:
        return
    (reading,) = readings
    assert [h for h in done.held if h.share_ns is None] == []
    assert reading.executions == len(done.held)
    assert reading.lost_ns == 0
    assert reading.batch_ns == sum(h.end_ns - h.start_ns for h in done.held)
    intervals = [Interval(h.start_ns, h.end_ns, ("m", n)) for n, h in enumerate(done.held)]
    assert reading.busy_ns == reading.given_ns == union_ns(intervals)
    assert reading.given_ns == sum(h.share_ns or 0 for h in done.held)
    if not at_once:
        exact = {s.interval.key[1]: s.busy_ns for s in divide_busy_time(intervals)}
        assert all(abs((h.share_ns or 0) - exact[n]) <= 1 for n, h in enumerate(done.held))

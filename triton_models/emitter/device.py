"""The accelerator under a model instance: when a batch had it, and what of that was its own.

Two answers come together: the board's, which instances on one device share its time, and the
clock's, which may be the device's own. Neither is needed to go on: without a board a batch has no
share, and its wall time counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from metering.occupancy_board import Board, Held
from triton_models.emitter.clock import Clock, MonotonicClock
from triton_models.emitter.facts import Facts


class Had(NamedTuple):
    """A batch that is over; ``None``: not known."""

    start_ns: int
    end_ns: int
    share_ns: int | None
    device_ns: int | None


class Device:
    """One model instance's view of its accelerator; one batch at a time."""

    def __init__(self, board: Board | None, clock: Clock, log: Callable[[str], None]) -> None:
        self._board = board
        self._log = log
        self._start_ns = 0
        # The host's clock is read here and by the board; it needs no marks of its own.
        self._marks = None if isinstance(clock, MonotonicClock) else clock

    @classmethod
    def open(cls, log_dir: Path, facts: Facts, clock: Clock, log: Callable[[str], None]) -> Device:
        """What can't be had is logged, and done without."""
        try:
            board = Board.open(log_dir, facts.device, facts.accelerator, facts.source, facts.model)
        except Exception as exc:  # noqa: BLE001  # metering never fails inference
            log(f"occupancy board of {facts.device}: {exc!r}; batches have no share of it")
            return cls(None, clock, log)
        return cls(board, clock, log)

    def begin(self) -> None:
        """A batch begins now, on the monotonic clock."""
        self._start_ns = time.monotonic_ns()
        if self._board is not None:
            try:
                self._start_ns = self._board.begin()
            except Exception as exc:  # noqa: BLE001  # metering never fails inference
                self._do_without(exc)
        if self._marks is not None:
            self._marks.start()

    def end(self) -> Had:
        marks = self._marks
        if marks is not None:
            marks.stop()
        held: Held | None = None
        if self._board is not None:
            try:
                held = self._board.end()
            except Exception as exc:  # noqa: BLE001  # metering never fails inference
                self._do_without(exc)
        if held is None:
            held = Held(self._start_ns, time.monotonic_ns(), None)
        device_ns = None if marks is None or marks.source != "cuda" else marks.elapsed_ns()
        return Had(*held, device_ns)

    def _do_without(self, exc: Exception) -> None:
        self._board = None
        self._log(f"occupancy board: {exc!r}; batches have no share of the device from now on")

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

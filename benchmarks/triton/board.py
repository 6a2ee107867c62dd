"""A file that a model and the benchmark have in memory together: a switch and a record per batch.

Runs on both sides, so it needs the standard library alone. The model writes records and the
benchmark the switches, ahead of it: so nobody has to wake up between two blocks, and they can be of
a few batches each. A record is whole before the count says that it is there.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

FOLDER_VARIABLE = "METER_BENCH_DIR"
"""In the models' environment: the folder of the boards, one per model, named after it."""
BATCHES = 2**16
_RECORD = struct.Struct("<QQQQQ")
_COUNT = struct.Struct("<Q")
_COUNT_AT, _SWITCHES_AT = 0, 64
_RECORDS_AT = _SWITCHES_AT + BATCHES


@dataclass(frozen=True, slots=True)
class Batch:
    """Times are of the monotonic clock: all of ``execute``, and ``serve`` within it."""

    on: bool
    requests: int
    begun_ns: int
    ended_ns: int
    serve_ns: int

    @property
    def beside_ns(self) -> int:
        """What ``execute`` did beside ``serve``."""
        return self.ended_ns - self.begun_ns - self.serve_ns


class Board:
    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._noted = 0

    @classmethod
    def create(cls, path: Path) -> Self:
        with path.open("w+b") as file:
            file.truncate(_RECORDS_AT + BATCHES * _RECORD.size)
            return cls(mmap.mmap(file.fileno(), 0))

    @classmethod
    def open(cls, path: Path) -> Self:
        with path.open("r+b") as file:
            return cls(mmap.mmap(file.fileno(), 0))

    @property
    def on(self) -> bool:
        """Whether the model's next batch is to be metered; off as long as nobody has said it."""
        return self._noted < BATCHES and self._memory[_SWITCHES_AT + self._noted] == 1

    def switch(self, first: int, switches: Sequence[bool]) -> None:
        """For the batches from ``first`` on. Raises ValueError: there is no place for so many."""
        if first + len(switches) > BATCHES:
            raise ValueError(f"{first + len(switches)} batches: a board holds {BATCHES}")
        at = _SWITCHES_AT + first
        self._memory[at : at + len(switches)] = bytes(switches)

    @property
    def count(self) -> int:
        found: int = _COUNT.unpack_from(self._memory, _COUNT_AT)[0]
        return found

    def note(self, on: bool, requests: int, begun_ns: int, ended_ns: int, serve_ns: int) -> None:
        """One writer per board. What is beyond ``BATCHES`` is not kept."""
        if self._noted < BATCHES:
            offset = _RECORDS_AT + self._noted * _RECORD.size
            _RECORD.pack_into(self._memory, offset, on, requests, begun_ns, ended_ns, serve_ns)
            self._noted += 1
            _COUNT.pack_into(self._memory, _COUNT_AT, self._noted)

    def batches(self, first: int, until: int) -> list[Batch]:
        return [
            Batch(bool(on), *rest)
            for on, *rest in (
                _RECORD.unpack_from(self._memory, _RECORDS_AT + n * _RECORD.size)
                for n in range(first, until)
            )
        ]

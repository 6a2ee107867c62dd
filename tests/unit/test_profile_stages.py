"""Stopwatches around the worker's stages."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from benchmarks.profile_worker import STAGES
from benchmarks.profiling import stages
from benchmarks.profiling.stages import Stopwatches
from metering.errors import MeteringError


class Clock:
    now_ns = 0

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def goes_on(self, ns: int) -> None:
        self.now_ns += ns


clock = Clock()


def outer() -> list[int]:
    clock.goes_on(5)
    found = []
    for n in inner():
        clock.goes_on(100)
        found.append(n)
    return found


def inner() -> Iterator[int]:
    for n in range(3):
        clock.goes_on(1)
        yield n


def test_every_stage_of_the_worker_is_where_it_is_looked_for() -> None:
    with Stopwatches(STAGES).in_place():
        pass


def test_a_stage_that_is_gone_is_named() -> None:
    with (
        pytest.raises(MeteringError, match=r"metering\.ledger:gone is not there"),
        Stopwatches({"stage": ("metering.ledger:gone",)}).in_place(),
    ):
        pass


def test_a_stage_gets_the_time_that_no_stage_inside_of_it_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = sys.modules[__name__]
    monkeypatch.setattr(stages, "time", clock)
    watches = Stopwatches({"out": (f"{__name__}:outer",), "in": (f"{__name__}:inner",)})
    with watches.in_place():
        assert here.outer() == [0, 1, 2]
    assert watches.own_ns == {"out": 305, "in": 3}

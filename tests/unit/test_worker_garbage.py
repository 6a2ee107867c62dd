"""Cycles: young ones go soon, old ones with the rarer look at everything."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from streams.worker.garbage import ALL_EVERY, collect


class Ring:
    """Holds itself."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def _only_when_told() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def test_a_young_cycle_goes_at_the_next_turn() -> None:
    seen = weakref.ref(Ring())
    collect(1)
    assert seen() is None


def test_a_cycle_that_was_alive_for_long_goes_when_everything_is_looked_at() -> None:
    ring = Ring()
    collect(1)
    collect(2)
    seen = weakref.ref(ring)
    del ring
    collect(ALL_EVERY - 1)
    assert seen() is not None
    collect(ALL_EVERY)
    assert seen() is None

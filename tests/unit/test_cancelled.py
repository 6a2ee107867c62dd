"""Which requests are asked whether somebody still waits for them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from metering.errors import MeteringError
from triton_models.emitter.cancelled import ASK_NS, watch_of


@dataclass
class Asked:
    gone: bool
    times: int = 0

    def is_cancelled(self) -> bool:
        self.times += 1
        return self.gone


def test_a_short_batch_asks_nobody_and_a_long_one_everybody() -> None:
    batch = [Asked(gone=n % 2 == 0) for n in range(8)]
    watch = watch_of({})
    assert watch.cancelled(batch, 0, 499 * ASK_NS) == frozenset()
    assert sum(r.times for r in batch) == 0
    assert watch.cancelled(batch, 0, 8 * 500 * ASK_NS) == {0, 2, 4, 6}
    assert [r.times for r in batch] == [1] * 8


def test_batches_that_can_ask_some_take_turns() -> None:
    batch = [Asked(gone=True) for _ in range(6)]
    watch = watch_of({})
    for sequence in range(3):
        assert len(watch.cancelled(batch, sequence, 2 * 500 * ASK_NS)) == 2
    assert [r.times for r in batch] == [1] * 6


@pytest.mark.parametrize(("asking", "wall_ns", "found"), [("always", 0, 3), ("never", 10**15, 0)])
def test_a_config_can_say_how_many_are_asked(asking: str, wall_ns: int, found: int) -> None:
    batch = [Asked(gone=True) for _ in range(3)]
    assert len(watch_of({"ask_cancelled": asking}).cancelled(batch, 0, wall_ns)) == found


def test_another_word_is_refused_by_name() -> None:
    with pytest.raises(MeteringError, match="ask_cancelled='often'"):
        watch_of({"ask_cancelled": "often"})

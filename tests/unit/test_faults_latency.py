"""Whether the comparison of latencies finds what hurts, and lets chance pass."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import Generator

from benchmarks.faults.latency import TOLERANCE, Seconds, by_second, compare

PER_SECOND = 50


def seconds(
    drawn: Generator, count: int, *, noisy: float = 0.0, factor: float = 1.0, stalls: int = 0
) -> Seconds:
    """Latencies around 60 ms. In a part ``noisy`` of the seconds a neighbour makes all of them
    longer, by up to 40 ms; in one second of ``stalls`` all wait for 200 ms."""
    found = []
    for number in range(count):
        latencies_ms = drawn.normal(55, 6, PER_SECOND) * factor
        if drawn.random() < noisy:
            latencies_ms += drawn.uniform(0, 40)
        if stalls and number % stalls == stalls - 1:
            latencies_ms += 200
        found.append(latencies_ms)
    return found


@pytest.mark.parametrize("noisy", [0.0, 0.3])
def test_the_same_load_passes_on_a_calm_and_on_a_noisy_machine(noisy: float) -> None:
    drawn = np.random.default_rng(1)
    verdicts = [
        compare(seconds(drawn, 60, noisy=noisy), seconds(drawn, 60, noisy=noisy), n).unhurt
        for n in range(20)
    ]
    assert all(verdicts)


def test_half_as_much_again_is_found_on_a_calm_and_on_a_noisy_machine() -> None:
    drawn = np.random.default_rng(2)
    for noisy in (0.0, 0.3):
        verdict = compare(
            seconds(drawn, 60, noisy=noisy), seconds(drawn, 60, noisy=noisy, factor=1.5), 0
        )
        assert not verdict.unhurt
        assert verdict.least_ms > verdict.tolerated_ms


def test_a_stall_in_every_tenth_second_is_found() -> None:
    drawn = np.random.default_rng(3)
    assert not compare(seconds(drawn, 60), seconds(drawn, 60, stalls=10), 0).unhurt


def test_one_bad_second_of_sixty_is_chance() -> None:
    drawn = np.random.default_rng(4)
    verdict = compare(seconds(drawn, 60), seconds(drawn, 60, stalls=60), 0)
    assert verdict.unhurt
    assert verdict.most_ms > 100  # and the range says how little is known


def test_a_faster_one_is_unhurt_and_the_tolerance_is_a_tenth() -> None:
    drawn = np.random.default_rng(5)
    verdict = compare(seconds(drawn, 60), seconds(drawn, 60, factor=0.8), 0)
    assert verdict.unhurt
    assert verdict.with_ms < verdict.without_ms
    assert verdict.tolerated_ms == pytest.approx(TOLERANCE * verdict.without_ms)


def test_requests_belong_to_the_second_and_the_stretch_in_which_they_were_sent() -> None:
    sent_at = [9.9, 10.1, 10.2, 11.5, 19.9, 20.0, 30.0, 30.5]
    latencies_s = [0.001 * n for n in range(8)]
    found = by_second(sent_at, latencies_s, [(10.0, 20.0), (30.0, 31.0)])
    assert [list(ms) for ms in found] == [[1.0, 2.0], [3.0], [4.0], [6.0, 7.0]]

"""Quantiles are values that were measured; failures are counted to the last one."""

from __future__ import annotations

import pytest

from streams.replay.load_result import FailureCounts, quantiles


@pytest.mark.parametrize(
    ("values", "p50", "p99"),
    [
        ([], None, None),
        ([3.0], 3.0, 3.0),
        ([2.0, 1.0], 1.0, 2.0),
        ([float(n) for n in range(100, 0, -1)], 50.0, 99.0),
        ([float(n) for n in range(1, 201)], 100.0, 198.0),
    ],
)
def test_quantiles_are_nearest_ranks(
    values: list[float], p50: float | None, p99: float | None
) -> None:
    assert quantiles(values, (0.5, 0.99)) == [p50, p99]


def test_the_most_frequent_failure_comes_first() -> None:
    failures = FailureCounts()
    for message in ("once", "twice", "twice"):
        failures.add("INTERNAL", message)
    assert list(failures.by_reason().items()) == [("INTERNAL: twice", 2), ("INTERNAL: once", 1)]

"""Which rows are judged together, and when."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from metering.costs import WindowRow
from streams.detection.intervals import Interval, Intervals

START_MS = 1_780_000_000_000


def row(window: int = 0, tenant: str = "acme", **changes: Any) -> WindowRow:
    values = {
        "window_start_ms": START_MS + window * 10_000,
        "window_seconds": 10,
        "tenant": tenant,
        "model": "tiny",
        "final": True,
        "counted_to": 1,
        "requests": 1,
        "retries": 0,
        "unpriced_requests": 0,
        "batch_size_sum": 1,
        "input_tokens": 1,
        "cached_input_tokens": 0,
        "output_tokens": 1,
        "gpu_ns": 2,
        "input_gpu_ns": 1,
        "output_gpu_ns": 1,
        "cost_usd": Decimal(2),
        "input_cost_usd": Decimal(1),
        "output_cost_usd": Decimal(1),
        **changes,
    }
    return WindowRow(**values)


def told(intervals: list[Interval]) -> list[tuple[list[str], int]]:
    return [([r.tenant for r in i.rows], i.last_offset) for i in intervals]


def test_an_interval_is_whole_when_a_later_one_begins() -> None:
    intervals = Intervals(10)
    assert intervals.add(row(0, "b"), 7, 0.0) == []
    assert intervals.add(row(0, "a"), 8, 0.0) == []
    assert told(intervals.add(row(1, "a"), 9, 0.0)) == [(["a", "b"], 8)]
    assert told(intervals.add(row(3, "b"), 12, 0.0)) == [(["a"], 9)]


def test_an_interval_is_whole_when_nothing_has_come_for_a_while() -> None:
    intervals = Intervals(10, settle_s=1.5)
    intervals.add(row(0, "a"), 0, 100.0)
    intervals.add(row(0, "b"), 1, 101.0)
    assert intervals.settle(102.4) == []
    assert told(intervals.settle(102.5)) == [(["a", "b"], 1)]
    assert intervals.settle(200.0) == []


def test_nothing_settles_before_anything_has_come() -> None:
    assert Intervals(10).settle(10**6) == []


def test_only_final_rows_of_the_judged_length_count_and_others_do_not_delay_it() -> None:
    intervals = Intervals(10, settle_s=1.5)
    intervals.add(row(0), 0, 0.0)
    assert intervals.add(row(1, final=False), 1, 1.0) == []
    assert intervals.add(row(6, window_seconds=60), 2, 1.0) == []
    assert told(intervals.settle(1.5)) == [(["acme"], 0)]
    assert intervals.corrections == 0


def test_the_newest_row_of_a_cohort_is_the_one_that_is_judged() -> None:
    intervals = Intervals(10)
    intervals.add(row(0, requests=1), 0, 0.0)
    intervals.add(row(0, requests=2, counted_to=2), 1, 0.0)
    (interval,) = intervals.add(row(1), 2, 0.0)
    assert [(r.requests, r.counted_to) for r in interval.rows] == [(2, 2)]


def test_cohorts_are_pairs_and_not_joined_names() -> None:
    intervals = Intervals(10)
    intervals.add(row(0, "a/b", model="c"), 0, 0.0)
    intervals.add(row(0, "a", model="b/c"), 1, 0.0)
    (interval,) = intervals.settle(10.0)
    assert [(r.tenant, r.model) for r in interval.rows] == [("a", "b/c"), ("a/b", "c")]


def test_a_correction_of_what_was_judged_is_counted_and_not_judged_again() -> None:
    intervals = Intervals(10)
    intervals.add(row(0), 0, 0.0)
    intervals.settle(10.0)
    assert intervals.add(row(0, requests=5), 1, 11.0) == []
    assert intervals.settle(100.0) == []
    assert intervals.corrections == 1


def test_a_row_of_a_window_before_the_open_one_is_a_correction_too() -> None:
    intervals = Intervals(10)
    intervals.add(row(5), 0, 0.0)
    assert intervals.add(row(4), 1, 0.0) == []
    assert intervals.corrections == 1
    assert told(intervals.settle(10.0)) == [(["acme"], 0)]


def test_the_window_that_begins_at_the_epoch_is_a_window() -> None:
    intervals = Intervals(10)
    intervals.add(row(0, window_start_ms=0), 0, 0.0)
    assert told(intervals.settle(10.0)) == [(["acme"], 0)]

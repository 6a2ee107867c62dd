"""Which rows are judged together, and when."""

from __future__ import annotations

from decimal import Decimal
from itertools import combinations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

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


Told = list[tuple[list[str], int]]


def told(intervals: list[Interval]) -> Told:
    return [([f"{r.tenant}{r.region}" for r in i.rows], i.last_offset) for i in intervals]


def end_of(window: int, after_ms: int = 0) -> int:
    """The stamp of a record that comes so long after the window's end."""
    return START_MS + (window + 1) * 10_000 + after_ms


def test_an_interval_is_whole_when_nothing_has_come_for_a_while() -> None:
    intervals = Intervals(10, settle_s=1.5)
    intervals.add(row(0, "a"), 0, 100.0)
    intervals.add(row(0, "b"), 1, 101.0)
    assert intervals.settle(102.4) == []
    assert told(intervals.settle(102.5)) == [(["a", "b"], 1)]
    assert intervals.settle(200.0) == []


def test_an_interval_is_whole_when_a_stamp_says_that_nothing_came_for_a_while() -> None:
    """As in a memory of days that is read within a second of the clock."""
    intervals = Intervals(10, settle_s=1.5)
    intervals.advance(end_of(0))
    intervals.add(row(0, "b"), 7, 0.0)
    intervals.advance(end_of(0, 1000))
    intervals.add(row(0, "a"), 8, 0.0)
    assert intervals.advance(end_of(0, 2500)) == []
    assert told(intervals.advance(end_of(0, 2600))) == [(["a", "b"], 8)]


def test_rows_of_several_writers_are_judged_together_though_a_later_window_has_begun() -> None:
    intervals = Intervals(10, settle_s=1.5)
    stamps = ((0, "a", 0), (1, "a", 100), (2, "a", 200), (0, "b", 1300), (1, "b", 1400))
    for offset, (window, tenant, at_ms) in enumerate(stamps):
        assert intervals.advance(end_of(2, at_ms)) == []
        intervals.add(row(window, tenant), offset, 0.0)
    assert told(intervals.settle(100.0)) == [(["a", "b"], 3), (["a", "b"], 4), (["a"], 2)]
    assert intervals.corrections == 0


def test_windows_are_judged_in_their_order_and_one_waits_for_those_before_it() -> None:
    intervals = Intervals(10, settle_s=1.5)
    intervals.add(row(1, "a"), 0, 0.0)
    intervals.add(row(0, "b"), 1, 1.0)
    assert intervals.settle(1.6) == []
    starts = [i.rows[0].window_start_ms for i in intervals.settle(2.5)]
    assert starts == [START_MS, START_MS + 10_000]


def test_what_comes_late_waits_longer_for_the_rest() -> None:
    """Writers that catch up with ten minutes may be some seconds apart."""
    intervals = Intervals(10, settle_s=1.5)
    intervals.advance(end_of(0, 50_000))
    intervals.add(row(0, "a"), 0, 0.0)
    assert intervals.advance(end_of(0, 56_000)) == []
    assert intervals.settle(6.4) == []
    assert told(intervals.settle(6.5)) == [(["a"], 0)]
    intervals.advance(end_of(1, 10**9))
    intervals.add(row(1, "a"), 1, 0.0)
    assert told(intervals.settle(11.5)) == [(["a"], 1)], "but not for ever"


def test_no_row_up_to_the_place_that_is_done_waits_to_be_judged() -> None:
    intervals = Intervals(10)
    for offset, (window, tenant) in enumerate(((0, "a"), (1, "a"), (0, "b"), (2, "a"), (1, "b"))):
        intervals.add(row(window, tenant), offset, 0.0)
    assert [(i.last_offset, i.done_to) for i in intervals.settle(100.0)] == [(2, 0), (4, 2), (3, 4)]


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from("abc"), st.integers(0, 4000)), max_size=40
    )
)
def test_every_row_is_judged_once_in_order_or_counted_as_a_correction(
    rows: list[tuple[int, str, int]],
) -> None:
    """And at a restart after any window those that follow it are still to be told."""
    intervals = Intervals(10, settle_s=1.5)
    done: list[Interval] = []
    stamp_ms = end_of(4)
    for offset, (window, tenant, gap_ms) in enumerate(rows):
        stamp_ms += gap_ms
        done += intervals.advance(stamp_ms)
        intervals.add(row(window, tenant, counted_to=offset), offset, 0.0)
    done += intervals.settle(100.0)
    starts = [i.rows[0].window_start_ms for i in done]
    assert starts == sorted(set(starts))
    last = {r.counted_to for i in done for r in i.rows}
    assert len(last) == sum(len(i.rows) for i in done)
    assert max(last, default=-1) <= max((i.done_to for i in done), default=-1) < max(1, len(rows))
    for before, after in combinations(done, 2):
        assert after.last_offset > before.done_to
    assert intervals.corrections <= len(rows) - len(last)


def test_nothing_settles_before_anything_has_come() -> None:
    assert Intervals(10).settle(10**6) == []
    assert Intervals(10).advance(START_MS) == []


def test_only_final_rows_of_the_judged_length_count_and_others_do_not_delay_it() -> None:
    intervals = Intervals(10, settle_s=1.5)
    intervals.add(row(0), 0, 0.0)
    intervals.add(row(1, final=False), 1, 1.0)
    intervals.add(row(6, window_seconds=60), 2, 1.0)
    assert told(intervals.settle(1.5)) == [(["acme"], 0)]
    assert intervals.corrections == 0


def test_the_row_of_a_cohort_that_counted_furthest_is_the_one_that_is_judged() -> None:
    intervals = Intervals(10)
    intervals.add(row(0, requests=1), 0, 0.0)
    intervals.add(row(0, requests=2, counted_to=2), 1, 0.0)
    intervals.add(row(0, requests=1), 2, 0.0)
    (interval,) = intervals.settle(10.0)
    assert [(r.requests, r.counted_to) for r in interval.rows] == [(2, 2)]
    assert interval.last_offset == 2


def test_cohorts_are_tuples_and_not_joined_names() -> None:
    intervals = Intervals(10)
    intervals.add(row(0, "a/b", model="c"), 0, 0.0)
    intervals.add(row(0, "a", model="b/c"), 1, 0.0)
    intervals.add(row(0, "a", model="b", region="c"), 2, 0.0)
    intervals.add(row(0, "a", model="b", region="d"), 3, 0.0)
    (interval,) = intervals.settle(10.0)
    assert [(r.tenant, r.model, r.region) for r in interval.rows] == [
        ("a", "b", "c"),
        ("a", "b", "d"),
        ("a", "b/c", ""),
        ("a/b", "c", ""),
    ]


def test_a_correction_of_what_was_judged_is_counted_and_not_judged_again() -> None:
    intervals = Intervals(10)
    intervals.add(row(0), 0, 0.0)
    intervals.settle(10.0)
    intervals.add(row(0, requests=5), 1, 11.0)
    assert intervals.settle(100.0) == []
    assert intervals.corrections == 1


def test_a_row_of_a_window_before_one_that_was_judged_is_a_correction_too() -> None:
    intervals = Intervals(10)
    intervals.add(row(5), 0, 0.0)
    intervals.settle(10.0)
    intervals.add(row(4), 1, 11.0)
    assert intervals.settle(100.0) == []
    assert intervals.corrections == 1


def test_the_window_that_begins_at_the_epoch_is_a_window() -> None:
    intervals = Intervals(10)
    intervals.add(row(0, window_start_ms=0), 0, 0.0)
    assert told(intervals.settle(10.0)) == [(["acme"], 0)]

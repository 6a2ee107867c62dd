"""The steady load and its arithmetic: which sighting is of which message, percentiles, lines."""

from __future__ import annotations

import os
import time
from collections import Counter

import numpy as np
import pytest

from benchmarks.steady.freshness import Watched, figures_of
from benchmarks.steady.match import (
    Appended,
    Counted,
    Lines,
    appended_by_group,
    percentiles,
    window_delays,
)
from benchmarks.steady.process import busy_s
from benchmarks.steady.received import lines_of, windows_of
from benchmarks.steady.sent import SENT, between
from benchmarks.steady.templates import COHORT, COHORTS_OF_TENANT, templates, tenants_for
from benchmarks.steady.trend import last_part, line_through, sparkline, trend_of
from benchmarks.steady.visible import Blocks, Part
from metering.usage_columns import usage_of_columns

MS = 10**6
S = 10**9


def test_a_filled_template_is_an_event_of_now_with_ids_of_its_own() -> None:
    template = templates(20, 32, seed=1)[0]
    end_ns = time.time_ns()
    first, other = (usage_of_columns(template.filled(n, end_ns, n + 5)) for n in (7, 8))
    assert (first.sequence, first.end_epoch_ns) == (7, end_ns)
    assert first.start_monotonic_ns == end_ns - first.wall_ns
    assert [r.tenant for r in first.requests] == list(template.tenants)
    assert sum(r.gpu_ns for r in first.requests) == first.gpu_ns
    ids = {r.request_id for r in (*first.requests, *other.requests)}
    assert len(ids) == 64


def test_templates_give_all_sources_the_same_share() -> None:
    shares = Counter(t.source.name for t in templates(20, 32, seed=1))
    assert len(shares) == 50
    assert len(set(shares.values())) == 1


@pytest.mark.parametrize("tenants", [20, 1_000])
def test_a_round_of_templates_is_of_every_cohort(tenants: int) -> None:
    found = templates(tenants, 32, seed=1)
    assert len({t.cohort(name) for t in found for name in t.tenants}) == tenants * COHORTS_OF_TENANT
    assert tenants_for(tenants * COHORTS_OF_TENANT) == tenants


def test_percentiles_are_delays_that_were_seen() -> None:
    delays = [n * MS for n in range(1, 101)]
    assert percentiles(delays) == [50.0, 95.0, 99.0, 100.0]
    assert percentiles([7 * MS]) == [7.0] * 4


def test_a_weight_is_how_often_a_delay_was_seen() -> None:
    assert percentiles([1 * MS, 9 * MS], [99, 1], of=(50, 99, 100)) == [1.0, 1.0, 9.0]
    assert percentiles([9 * MS, 1 * MS], [2, 98], of=(99,)) == [9.0]


def test_a_message_is_seen_when_the_last_of_its_lines_is() -> None:
    lines = Lines()
    lines.add(("a", 1), [0, 2], 100)
    assert lines.complete_ns(("a", 1), 3) is None
    lines.add(("a", 1), [1], 300)
    lines.add(("a", 1), [1, 2], 900)
    assert lines.complete_ns(("a", 1), 3) == 300
    assert lines.complete_ns(("a", 2), 1) is None
    assert lines.repeated == 2


def test_the_first_row_that_counts_as_many_counts_the_last_of_them() -> None:
    appended = {("w",): [Appended(10, 2, True), Appended(20, 1, True), Appended(30, 4, True)]}
    counted = Counted()
    for requests, at_ns in ((2, 50), (2, 60), (3, 70), (7, 90)):
        counted.add(requests, at_ns)
    assert window_delays(appended, {("w",): counted}) == ([(40, 2), (50, 1), (60, 4)], 0)


def test_requests_of_the_warm_up_are_counted_but_not_measured() -> None:
    appended = {("w",): [Appended(10, 5, False), Appended(20, 1, True)]}
    counted = Counted([50, 80], [5, 6])
    assert window_delays(appended, {("w",): counted}) == ([(60, 1)], 0)


def test_requests_in_no_row_are_missing_and_have_no_delay() -> None:
    appended = {("w",): [Appended(10, 5, True), Appended(20, 3, True)], ("x",): []}
    assert window_delays(appended, {("w",): Counted([50], [6])}) == ([(40, 5)], 3)
    assert window_delays(appended, {}) == ([], 8)


def test_requests_are_counted_by_the_window_of_the_events_end() -> None:
    found = appended_by_group([(1, 19 * S, True, [("a",), ("a",), ("b",)])], 10)
    assert found == {(10, "a"): [Appended(1, 2, True)], (10, "b"): [Appended(1, 1, True)]}


def test_lines_are_read_from_columns_of_either_kind() -> None:
    value = (
        b'{"tenant":"t","lines":3,"source":{"values":["a","b"],"codes":[0,1,1]},'
        b'"sequence":5,"position":[0,0,1]}'
    )
    lines = lines_of([(9, value)])
    assert lines.complete_ns(("a", 5), 1) == 9
    assert lines.complete_ns(("b", 5), 2) == 9


def test_rows_of_other_windows_are_passed_over() -> None:
    names = ",".join(f'"{name}":"{name}"' for name in ("tenant", "model", "region"))
    rows = [
        (at_ns, f'{{"window_seconds":{s},"window_start_ms":60000,"requests":{n},{names}}}'.encode())
        for at_ns, s, n in ((1, 10, 4), (2, 60, 9), (3, 10, 6))
    ]
    assert windows_of(rows, 10) == {(60, *COHORT): Counted([1, 3], [4, 6])}


def test_a_part_with_a_later_block_is_new_also_when_it_was_merged() -> None:
    blocks = Blocks()
    first = Part("all_1_1_0", "all", 1, 10)
    assert blocks.new([first]) == [first]
    blocks.saw([first])
    assert blocks.new([first]) == []
    merged = Part("all_1_2_1", "all", 2, 20)
    assert blocks.new([merged, Part("other_1_1_0", "other", 1, 5)])[0] == merged


def test_what_is_measured_is_told_by_the_brokers_stamp() -> None:
    sent = np.zeros(3, SENT)
    sent["appended_ms"] = 1, 2, 3
    assert between(sent, 2 * MS, 3 * MS).tolist() == [False, True, False]


def test_a_run_at_another_rate_does_not_hold() -> None:
    template = templates(20, 32, seed=1)[0]
    sent = np.zeros(2, SENT)
    sent["sequence"] = 0, 1
    sent["appended_ms"] = 100, 600
    lines = Lines()
    for sequence in (0, 1):
        lines.add((template.source.name, sequence), range(32), (300 + 500 * sequence) * MS)
    counted: dict[tuple[object, ...], Counted] = {
        (0, *template.cohort(tenant)): Counted([900 * MS], [2 * n])
        for tenant, n in Counter(template.tenants).items()
    }
    run = Watched(
        [template], sent, 0, S, in_sql=lines, delivered=lines, counted=counted, window_s=10
    )
    figures = figures_of(run, 64)
    assert figures["rate"].holds is True
    assert (figures["sql_p99"].value, figures["sql_p99"].holds) == (200.0, True)
    assert (figures["windows_p50"].value, figures["windows_p99"].value) == (300.0, 800.0)
    assert figures_of(run, 65)["rate"].holds is False


def test_a_machine_is_busy_with_what_is_neither_idle_nor_waiting_nor_counted_twice() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    stat = "cpu  1 2 3 400 500 6 7 8 90 91\ncpu0 1 2 3 4 5 6 7 8 9 10\n"
    assert busy_s(stat) == pytest.approx((1 + 2 + 3 + 6 + 7 + 8) / ticks)


def test_a_line_goes_through_its_points() -> None:
    line = line_through([0, 1, 2], [5, 7, 9])
    assert (line.slope, line.intercept, line.r2) == (2.0, 5.0, 1.0)
    assert line_through([0, 1, 2], [4, 4, 4]).r2 == 1.0
    assert line_through([0, 1, 2, 3], [0, 1, 0, 1]).r2 == pytest.approx(0.2)
    with pytest.raises(ValueError, match="two points"):
        line_through([1, 1], [2, 3])


def test_a_change_is_that_of_the_fitted_line_over_the_mean() -> None:
    trend = trend_of([0, 10, 20], [90, 100, 110])
    assert (trend.mean, trend.change, trend.per_s) == (100.0, 0.2, 1.0)
    assert last_part([0, 10, 20], [1, 2, 3], from_s=10) == ([10, 20], [2, 3])


def test_a_sparkline_goes_from_the_smallest_to_the_largest() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8]) == "▁▂▃▄▅▆▇█"
    assert sparkline([3, 3, 3]) == "▁▁▁"
    assert len(sparkline(list(range(1000)), width=60)) == 60
    assert sparkline([]) == ""

"""The sums of a window are the sums, whatever comes together and however large it is."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from metering.additions import TALLY, Additions, Mark
from metering.money import ATTO_PER_USD
from metering.totals import Keeping, Totals, add, tell
from metering.totals_records import changed_records, totals_of
from metering.window_sums import BASE, CHUNK, MOST_COUNT, MOST_USD, WindowSums, words_of
from metering.windows import WINDOW_SECONDS

Cohort = tuple[str, str, str]
cohorts = st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.just("eu"))
counts = st.integers(0, 5) | st.integers(0, 2**62) | st.integers(2**64 - 4, 2**64 - 1)
costs = (
    st.integers(0, 10**20)
    | st.integers(0, 2**75 * 10**9)
    | st.integers(MOST_USD * ATTO_PER_USD - 4, MOST_USD * ATTO_PER_USD - 1)
)
REQUESTS, COST = TALLY.index("requests"), TALLY.index("cost_atto")


@given(st.lists(st.lists(st.tuples(cohorts, counts, costs), min_size=1, max_size=8)))
def test_each_sum_is_exact_and_one_that_can_not_be_stored_is_refused(
    drawn: list[list[tuple[Cohort, int, int]]],
) -> None:
    window = WindowSums()
    expected: defaultdict[Cohort, list[int]] = defaultdict(lambda: [0] * len(TALLY))
    for rows in drawn:
        columns = [np.zeros(len(rows), object) for _ in TALLY]
        columns[REQUESTS][:] = [count for _, count, _ in rows]
        columns[COST][:] = [cost for *_, cost in rows]
        found = window.add([cohort for cohort, *_ in rows], words_of(columns))
        refused = set()
        for cohort in {cohort for cohort, *_ in rows}:
            sums = expected[cohort]
            count = sums[REQUESTS] + sum(n for c, n, _ in rows if c == cohort)
            cost = sums[COST] + sum(n for c, _, n in rows if c == cohort)
            if count > MOST_COUNT or cost >= MOST_USD * ATTO_PER_USD:
                refused.add(cohort)
            else:
                sums[REQUESTS], sums[COST] = count, cost
        assert found.tolist() == [cohort in refused for cohort, *_ in rows]
    sums = window.sums(range(len(window.cohorts)))
    assert dict(zip(window.cohorts, sums, strict=True)) == dict(expected)
    told, words = window.tell()
    assert set(told) <= set(expected)
    assert not window.has_news
    assert ((words[..., 0] >= 0) & (words[..., 0] < BASE)).all()
    assert (words[..., 1] >= 0).all()


def test_a_cohort_may_come_many_times_at_once() -> None:
    window = WindowSums()
    columns = [np.zeros(1000, object) for _ in TALLY]
    columns[COST][:] = BASE - 1
    assert not window.add([("a", "x", "eu")] * 1000, words_of(columns)).any()
    assert window.sums([0])[0][COST] == 1000 * (BASE - 1)


def test_what_was_refused_leaves_no_hole_in_what_is_saved() -> None:
    totals = Totals()
    zero, first = np.zeros(1, np.int64), np.array([2**64], object)
    for offset in range(2 * CHUNK + 1):
        counts = np.array([1]) if offset == 2 * CHUNK else first
        values = [counts if n == REQUESTS else zero for n in range(len(TALLY))]
        additions = Additions([(f"t{offset}", "m", "eu")], zero, zero, values)
        not_added = add(totals, offset, Mark(0, 1, offset, 0, 0, 0), additions, Keeping())
        assert len(not_added.too_large) == (0 if offset == 2 * CHUNK else 4)
    again = totals_of({key: value for key, value in changed_records(totals) if value is not None})
    rows = tell(again, WINDOW_SECONDS)
    assert {row.tenant for row in rows} == {f"t{2 * CHUNK}"}
    assert len(rows) == 4

"""The sums of a window are the sums, whatever comes together."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from metering.additions import TALLY
from metering.window_sums import WindowSums, words_of

cohorts = st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.just("eu"))
amounts = st.integers(0, 5) | st.integers(0, 10**20)


@given(st.lists(st.lists(st.tuples(cohorts, amounts, amounts), min_size=1, max_size=8)))
def test_a_cohort_that_comes_several_times_is_summed_up(
    drawn: list[list[tuple[tuple[str, str, str], int, int]]],
) -> None:
    window, expected = WindowSums(), defaultdict(lambda: [0] * len(TALLY))
    for rows in drawn:
        columns = [np.zeros(len(rows), object) for _ in TALLY]
        columns[0][:] = [first for _, first, _ in rows]
        columns[-1][:] = [last for *_, last in rows]
        window.add([cohort for cohort, *_ in rows], words_of(columns))
        for cohort, first, last in rows:
            expected[cohort][0] += first
            expected[cohort][-1] += last
    found = window.sums(range(len(window.cohorts)))
    assert dict(zip(window.cohorts, found, strict=True)) == dict(expected)
    told, words = window.tell()
    assert told == sorted(expected)
    assert not window.has_news
    assert int((words[..., 0] >= 10**9).sum()) == 0

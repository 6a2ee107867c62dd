"""Additions of any number of cohorts fit into records, and are added as if they were one."""

from __future__ import annotations

import numpy as np
import pytest

from metering.additions import TALLY, Additions, Mark, decode
from metering.totals import Keeping, Totals, add, closing_ns, expected, tell
from streams.topics import LARGEST_FRAME_BYTES
from streams.worker.additions_records import MOST_ROWS, additions_records, pieces_of

NOON_S = 1_780_000_020
MARK = Mark(0, 1, 9, 70, NOON_S * 10**9, NOON_S * 10**9)


def additions_of(count: int, name: str = "t") -> Additions:
    ones = np.ones(count, np.int64)
    return Additions(
        [(f"{name}{n:05d}", name, name) for n in range(count)],
        ones * (NOON_S - 600),
        ones * 0,
        [ones for _ in TALLY],
    )


@pytest.mark.parametrize("count", [0, 1, MOST_ROWS, 3 * MOST_ROWS + 1])
@pytest.mark.parametrize("ways", [1, 2])
def test_pieces_are_added_as_one_that_is_not_cut(count: int, ways: int) -> None:
    """They are old, but not late: the mark comes with the last of them."""
    additions = additions_of(count)
    pieces = pieces_of(additions, ways)
    records = additions_records(MARK, pieces)
    assert [record.partition for record in records] == list(range(ways)) * len(pieces)
    told = []
    for way in range(ways):
        totals = Totals()
        for offset, record in enumerate(r for r in records if r.partition == way):
            assert closing_ns(totals) == 0
            mark, found = decode(record.value or b"")
            assert expected(totals, mark)
            assert not len(add(totals, offset, mark, found, Keeping()).late.cohorts)
        assert totals.marks == {0: MARK}
        told += [(row.tenant, row.requests) for row in tell(totals, ()) if row.window_seconds == 10]
    assert sorted(told) == [(cohort[0], 1) for cohort in additions.cohorts]


def test_the_longest_names_fit_into_a_record() -> None:
    additions = additions_of(MOST_ROWS, "\x01" * 251)
    values = [np.full(MOST_ROWS, 2**100, object) for _ in TALLY]
    largest = Additions(additions.cohorts, additions.start_s, additions.level, values)
    (record,) = additions_records(MARK, pieces_of(largest, 1))
    assert len(record.value or b"") < LARGEST_FRAME_BYTES

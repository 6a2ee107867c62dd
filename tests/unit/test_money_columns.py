"""Attodollars as texts, many at once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from metering.columns import Ints
from metering.money_columns import dollar_rows, dollars


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1))
def test_rows_of_bytes_are_the_texts(atto: list[int]) -> None:
    column = Ints(np.array(atto, np.int64))
    rows = dollar_rows(column)
    assert rows is not None
    assert [bytes(row).decode() for row in rows] == [f'"{text}",' for text in dollars(column)]


def test_what_has_no_fixed_width_has_no_rows() -> None:
    unpriced = Ints(np.array([5, 0], np.int64), np.array([True, False]))
    assert dollar_rows(unpriced) is None
    assert dollars(unpriced) == ["0.000000000000000005", None]
    assert dollar_rows(Ints(np.array([10**20], object))) is None
    assert dollars(Ints(np.array([10**20], object))) == ["100.000000000000000000"]

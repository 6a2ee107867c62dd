"""Attodollars as texts, many at once."""

from __future__ import annotations

import numpy as np

from metering.columns import Ints
from metering.money_columns import dollars


def test_what_is_not_known_has_no_text() -> None:
    unpriced = Ints(np.array([5, 0], np.int64), np.array([True, False]))
    assert dollars(unpriced) == ["0.000000000000000005", None]
    assert dollars(Ints(np.array([10**20], object))) == ["100.000000000000000000"]

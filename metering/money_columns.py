"""Columns of attodollars as JSON texts of dollars, many at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metering.columns import Ints
from metering.money import atto_text

_WIDTH = len('"0.000000000000000000",')
_GROUPS = 5
"""Of four digits: two before the point and 18 behind it."""
_FOUR = np.array([b"%04d" % n for n in range(10_000)], "S4").view(np.uint32)


def dollars(column: Ints) -> list[str | None]:
    """``None`` where there is no price; all with 18 decimals."""
    return [None if a is None else atto_text(a) for a in column.tolist()]


def dollar_rows(column: Ints) -> NDArray[np.uint8] | None:
    """A row of bytes for each value: its text in quotes, and a comma. ``None`` where that has no
    fixed width: some have no price, or there are 10 dollars or more."""
    values = column.values
    if column.known is not None or values.dtype != np.int64 or int(values.min()) < 0:
        return None
    digits = np.empty((len(values), _GROUPS), np.uint32)
    rest = values.astype(np.uint64)
    for place in range(_GROUPS - 1, -1, -1):
        upper = rest // 10_000
        digits[:, place] = _FOUR[rest - upper * 10_000]
        rest = upper
    texts = digits.view(np.uint8)
    rows = np.empty((len(values), _WIDTH), np.uint8)
    rows[:, [0, 2, -2, -1]] = np.frombuffer(b'".",', np.uint8)
    rows[:, 1] = texts[:, 1]
    rows[:, 3:-2] = texts[:, 2:]
    return rows

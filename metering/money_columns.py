"""Columns of attodollars as texts of dollars."""

from __future__ import annotations

from metering.columns import Ints
from metering.money import atto_text


def dollars(column: Ints) -> list[str | None]:
    """``None`` where there is no price; all with 18 decimals."""
    return [None if a is None else atto_text(a) for a in column.tolist()]

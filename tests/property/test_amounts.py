"""Columns of large money against the rule for one amount."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from metering.amounts import Amounts, quotients, words
from metering.columns import whole
from metering.money import ATTO_PER_USD, atto_quotient, atto_text, quotient, usd

BASE = 10**9
MOST_USD = 9 * 10**12
attos = st.one_of(
    st.integers(0, MOST_USD * ATTO_PER_USD - 1),
    st.integers(0, 2**63 * BASE - 1),
    st.integers(0, 100 * ATTO_PER_USD),
    st.sampled_from(
        [
            0,
            1,
            BASE - 1,
            BASE,
            ATTO_PER_USD - 1,
            ATTO_PER_USD,
            2**63,
            2**64,
            2**64 - 1,
            MOST_USD * ATTO_PER_USD - 1,
        ]
    ),
)
counts = st.one_of(
    st.integers(0, 2**64 - 1),
    st.integers(0, 20),
    st.sampled_from([2**63 // BASE - 1, 2**63 // BASE, 2**63 // BASE + 1]),
)
rows = st.lists(st.tuples(attos, counts), min_size=1, max_size=20)


def column_of(rows: list[tuple[int, int]]) -> Amounts:
    parts = [divmod(atto, ATTO_PER_USD) for atto, _ in rows]
    dollars, atto = zip(*parts, strict=True)
    return Amounts(np.array(dollars, np.int64), np.array(atto, np.int64))


@given(rows=rows, per=st.sampled_from([1, 10**3, 10**6]))
def test_quotients_are_those_of_the_rule(rows: list[tuple[int, int]], per: int) -> None:
    column = column_of(rows)
    assert column.tolist() == [atto for atto, _ in rows]
    found = quotients(column, whole([count for _, count in rows]), per)
    expected = [quotient(usd(atto), count, per) for atto, count in rows]
    assert [None if atto is None else usd(atto) for atto in found.tolist()] == expected
    assert ((found.atto >= 0) & (found.atto < ATTO_PER_USD)).all()
    singly = [atto_quotient(atto * per, count) for atto, count in rows]
    assert singly == found.tolist()


@given(rows=rows)
def test_128_bits_hold_all_of_it(rows: list[tuple[int, int]]) -> None:
    column = column_of(rows)
    assert [low + (high << 64) for low, high in words(column).tolist()] == [a for a, _ in rows]


@given(atto=attos)
def test_a_text_has_all_decimals(atto: int) -> None:
    text = atto_text(atto)
    assert Decimal(text) == usd(atto)
    assert len(text.partition(".")[2]) == 18

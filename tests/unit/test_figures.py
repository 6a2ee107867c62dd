"""What people read has digits that count, whatever the size."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.figures import figure, money, percentage


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (Decimal("0.004"), "$0.0040"),
        (0.004, "$0.0040"),
        (Decimal("-0.004"), "−$0.0040"),
        (Decimal("1E-18"), "$0.0000000000000000010"),
        (Decimal("0E-18"), "$0.00"),
        (Decimal("-0.00"), "$0.00"),
        (0.0, "$0.00"),
        (-0.0, "$0.00"),
        (Decimal("0.0999"), "$0.10"),
        (Decimal("0.00999"), "$0.010"),
        (Decimal("0.00994"), "$0.0099"),
        (Decimal("0.0996"), "$0.10"),
        (Decimal("0.995"), "$1.00"),
        (Decimal("0.996"), "$1.00"),
        (Decimal("0.12345"), "$0.12"),
        (1.005, "$1.00"),
        (Decimal("9.999"), "$10.00"),
        (Decimal("1234.5"), "$1,234.50"),
        (Decimal("1E+3"), "$1,000.00"),
        (Decimal(10) ** 30, "$" + "1" + ",000" * 10 + ".00"),
        (Decimal("8999999999999.999999999999999999"), "$9,000,000,000,000.00"),
        (None, "–"),
    ],
)
def test_money(amount: Decimal | float | None, shown: str) -> None:
    assert money(amount) == shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(Decimal("0.004"), "+$0.0040"), (-41.2, "−$41.20"), (Decimal(0), "$0.00")],
)
def test_money_with_its_sign(amount: Decimal | float, shown: str) -> None:
    assert money(amount, signed=True) == shown


@pytest.mark.parametrize(
    ("value", "options", "shown"),
    [
        (41.4, {}, "41"),
        (9.96, {}, "10"),
        (0.4, {}, "0.40"),
        (1234567.0, {}, "1,234,567"),
        (Decimal("12.5"), {"digits": 3}, "12.5"),
        (Decimal("0.0000125"), {"digits": 3}, "0.0000125"),
        (Decimal("999.6"), {"digits": 3}, "1,000"),
        (0, {}, "0"),
        (0, {"decimals": 2}, "0.00"),
        (1e-300, {}, "0." + "0" * 299 + "10"),
        (float("nan"), {}, "NaN"),
        (float("-inf"), {}, "-Infinity"),
    ],
)
def test_figures(value: Decimal | float, options: dict[str, int], shown: str) -> None:
    assert figure(value, **options) == shown


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        (0.83, "83 %"),
        (1.12, "112 %"),
        (0.004, "0.40 %"),
        (-0.3, "−30 %"),
        (0.0, "0 %"),
        (1, "100 %"),
    ],
)
def test_percentages(part: float, shown: str) -> None:
    assert percentage(part) == shown


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.decimals(
    allow_nan=False, allow_infinity=False, places=18, min_value=-(10**20), max_value=10**20
)


@given(numbers, st.integers(0, 4), st.integers(1, 5))
def test_what_is_shown_is_near_what_it_is(
    value: Decimal | float, decimals: int, digits: int
) -> None:
    shown = figure(value, decimals=decimals, digits=digits)
    assert "e" not in shown.lower()
    plain = Decimal(shown.replace("−", "-").replace(",", ""))
    exact = Decimal(repr(value)) if isinstance(value, float) else value
    assert (plain == 0) == (exact == 0)
    assert len(shown.partition(".")[2]) >= decimals
    if exact:
        assert abs(plain - exact) <= abs(exact) * Decimal(10) ** (1 - digits) / 2
        assert (plain < 0) == (exact < 0)

"""Laws of money: nothing appears, nothing vanishes, nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext

from hypothesis import given
from hypothesis import strategies as st

from metering.money import NS_PER_HOUR, atto_usd, quotient, usd
from metering.prices import BELOW_USD, PriceBook, parse_price_book
from metering.pricing import gpu_cost_atto, price_batch
from metering.usage import UsageBatch

prices = st.decimals(0, BELOW_USD - 1, places=9, allow_nan=False, allow_infinity=False)


def book_at(price: Decimal, accelerator: str = "cpu") -> PriceBook:
    return parse_price_book(
        f'[[gpu_hour]]\nid = "p"\naccelerator = "{accelerator}"\nregion = "*"\n'
        f'usd_per_gpu_hour = "{price:f}"\neffective_from = 2020-01-01T00:00:00Z\n',
        "book",
    )


@given(st.integers(0, 10**14), prices, st.integers(1, 64))
def test_lines_sum_to_the_batch_to_the_attodollar(
    batch_of: Callable[..., UsageBatch], gpu_ns: int, price: Decimal, size: int
) -> None:
    batch = batch_of(gpu_ns=gpu_ns, requests=[{}] * size)
    lines = price_batch(batch, book_at(price))
    total = sum(atto_usd(line.cost_usd) for line in lines if line.cost_usd is not None)
    assert total == gpu_cost_atto(gpu_ns, int(price * 10**9))
    for line in lines:
        assert line.cost_usd is not None
        assert line.input_cost_usd is not None
        assert line.output_cost_usd is not None
        assert line.input_cost_usd + line.output_cost_usd == line.cost_usd


@given(st.integers(0, 10**15), prices)
def test_cost_is_time_times_price_rounded_once(gpu_ns: int, price: Decimal) -> None:
    with localcontext() as context:
        context.prec = 60
        exact = Decimal(gpu_ns) * price / NS_PER_HOUR
        assert abs(usd(gpu_cost_atto(gpu_ns, int(price * 10**9))) - exact) <= Decimal("0.5e-18")


def test_an_unknown_price_leaves_the_cost_unknown(batch_of: Callable[..., UsageBatch]) -> None:
    (line,) = price_batch(batch_of(), book_at(Decimal(1), accelerator="another"))
    assert line.pricing_status == "unpriced"
    assert line.cost_usd is None
    assert line.price_id == ""


def test_a_price_of_zero_is_a_price(batch_of: Callable[..., UsageBatch]) -> None:
    (line,) = price_batch(batch_of(), book_at(Decimal(0)))
    assert line.pricing_status == "priced"
    assert line.cost_usd == 0


@given(st.integers(-(10**40), 10**40))
def test_dollars_and_attodollars_are_the_same_amount(atto: int) -> None:
    with localcontext() as context:
        context.prec = 5
        assert atto_usd(usd(atto)) == atto


def test_a_cost_per_nothing_is_unknown() -> None:
    assert quotient(Decimal(1), 0) is None
    assert quotient(Decimal(3), 2, 10**6) == 1_500_000

"""Money inside is an integer count of attodollars (1e-18 USD); outside it is ``Decimal``."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal

ATTO_PER_USD = 10**18
NS_PER_HOUR = 3_600 * 10**9
_EXACT = Context(prec=76, rounding=ROUND_HALF_EVEN)


def usd(atto: int) -> Decimal:
    """Attodollars to dollars, exactly, whatever the decimal context."""
    return _EXACT.scaleb(Decimal(atto), -18)


def atto_usd(amount: Decimal) -> int:
    """Dollars to attodollars; more than 18 decimals are rounded half to even."""
    return int(_EXACT.quantize(_EXACT.scaleb(amount, 18), Decimal(1)))


def quotient(cost: Decimal, count: int | None, per: int = 1) -> Decimal | None:
    """``cost`` per ``per`` units, 18 decimals; ``None`` where there were no units, or nobody knows
    how many."""
    if count is None or count == 0:
        return None
    exact = _EXACT.divide(_EXACT.multiply(cost, Decimal(per)), Decimal(count))
    return _EXACT.quantize(exact, Decimal("1e-18"))


def atto_quotient(atto: int, count: int) -> int | None:
    """:func:`quotient` in attodollars: half to even, ``None`` where there were no units."""
    if count == 0:
        return None
    whole, rest = divmod(atto, count)
    return whole + (2 * rest > count or (2 * rest == count and whole % 2 == 1))


def atto_text(atto: int) -> str:
    """Attodollars, at least 0, as dollars with all 18 decimals."""
    return f"{atto // ATTO_PER_USD}.{atto % ATTO_PER_USD:018d}"

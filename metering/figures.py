"""Numbers as people read them: money, rates and parts, never with fewer digits than say something.

At least two digits that count (as many as ``digits`` says), so 0.004 USD is ``$0.0040`` and not
``$0.00``; thousands are grouped, and there is never an exponent. What events and columns carry is
not made here: it is exact.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal

Number = Decimal | float
_EXACT = Context(prec=800, rounding=ROUND_HALF_EVEN)
"""A float's 309 digits before the point, and as many behind it."""
MINUS = "−"


def figure(value: Number, *, decimals: int = 0, digits: int = 2, signed: bool = False) -> str:
    """With ``decimals``, and more where fewer than ``digits`` would count: ``0.0040``, ``1,235``.

    A ``signed`` one that is above 0 has a plus. What is rounded up to the next power of ten has no
    digit more for it: 0.0999 is ``0.10``.
    """
    sign, size = _sign_and_size(value, decimals, digits, signed=signed)
    return sign + size


def money(usd: Number | None, *, decimals: int = 2, digits: int = 2, signed: bool = False) -> str:
    """Dollars: ``$1,234.50``, ``−$0.0040``; a dash where nothing is known."""
    if usd is None:
        return "–"
    sign, size = _sign_and_size(usd, decimals, digits, signed=signed)
    return f"{sign}${size}"


def percentage(part: Number, *, decimals: int = 0) -> str:
    """A part of 1: ``83 %``, ``0.40 %``."""
    return f"{figure(_decimal(part) * 100, decimals=decimals)} %"


def _sign_and_size(value: Number, decimals: int, digits: int, *, signed: bool) -> tuple[str, str]:
    exact = _decimal(value)
    if not exact.is_finite():
        return "", str(exact)
    sign = MINUS if exact < 0 else "+" if signed and exact > 0 else ""
    size = exact.copy_abs()
    if size == 0:
        return sign, f"{0:.{decimals}f}"
    # The rounded one says where the first digit is: 0.0999 counts as 0.10.
    rounded = Context(prec=digits, rounding=ROUND_HALF_EVEN).plus(size)
    places = max(decimals, digits - 1 - rounded.adjusted())
    return sign, f"{_EXACT.quantize(size, Decimal(1).scaleb(-places)):,f}"


def _decimal(value: Number) -> Decimal:
    """A float as the shortest text that is this float."""
    return value if isinstance(value, Decimal) else Decimal(repr(float(value)))

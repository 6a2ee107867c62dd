"""Names that come from outside, as an event can hold them."""

from __future__ import annotations

MAX_LENGTH = 256
_REPLACEMENT = "\ufffd"


def clean(value: object) -> str:
    """A name that an event can hold: printable, stripped, at most 256 characters; "" is absent.

    Whole numbers are taken by their digits; a character that can't be printed (a control, half of
    a surrogate pair) becomes U+FFFD, so that it is seen and still encodes as UTF-8.
    """
    if type(value) is str and len(value) <= MAX_LENGTH and value.isprintable():
        return value.strip()  # as nearly all are
    if isinstance(value, int) and not isinstance(value, bool):
        value = format(value, "d") if abs(value) < 10**MAX_LENGTH else ""
    if not isinstance(value, str):
        return ""
    value = value[: 2 * MAX_LENGTH].strip()[:MAX_LENGTH].rstrip()
    if value.isprintable():
        return value
    return "".join(c if c.isprintable() else _REPLACEMENT for c in value)

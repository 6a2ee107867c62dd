"""Names that come from outside: kept exactly as they are, or refused, so that no two become one."""

from __future__ import annotations

MAX_LENGTH = 256
_LOST = "\ufffd"


def clean(value: object) -> str:
    """The name, exactly as given; "" where there is none, or :func:`fault_of` refuses it.

    A whole number is named by its digits. Nothing is stripped, cut or replaced.
    """
    if type(value) is str and len(value) <= MAX_LENGTH and _is_plain(value):
        return value  # as nearly all are
    return "" if value is None or fault_of(value) else _text(value)


def fault_of(value: object) -> str:
    """Why a value can't be a name; "" where it can, and where there is none (``None`` or "")."""
    if value is None:
        return ""
    text = _text(value)
    if not isinstance(text, str):
        return f"a {type(value).__name__} is no name"
    if len(text) > MAX_LENGTH:
        return f"{len(text)} characters: a name has at most {MAX_LENGTH}"
    if text.startswith(" ") or text.endswith(" "):
        return "a name neither begins nor ends with a space"
    for place, character in enumerate(text):
        if not character.isprintable() or character == _LOST:
            return f"U+{ord(character):04X} at {place}: a name has printable characters only"
    return ""


def mended(text: str) -> str:
    """The text as UTF-8 can have it: U+FFFD for half of a surrogate pair, so that it is refused."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_plain(text: str) -> bool:
    return text.isprintable() and text == text.strip(" ") and _LOST not in text


def _text(value: object) -> str:
    """A text of it, or what is none (which has another type than it says)."""
    if isinstance(value, int) and not isinstance(value, bool):
        # Python writes no number of more than some thousand digits.
        return format(value, "d") if abs(value) < 10 ** (2 * MAX_LENGTH) else "9" * 2 * MAX_LENGTH
    return value  # type: ignore[return-value]  # fault_of looks

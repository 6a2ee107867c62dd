"""How many bytes a column of a given type takes in the Native format.

Types whose values only the engine can measure (states of aggregate functions, JSON, Dynamic,
Variant and whatever is newer than this file) are opaque: `column_end` raises `Opaque` for them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

_NAME = re.compile(r"\w+", re.ASCII)
_QUOTED = re.compile(
    r"'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.|``)*`|\"(?:[^\"\\]|\\.|\"\")*\"", re.DOTALL
)
_FIXED: Final[dict[str, int]] = {
    **dict.fromkeys(("UInt8", "Int8", "Bool", "Enum8", "Nothing"), 1),
    **dict.fromkeys(("UInt16", "Int16", "Enum16", "Date", "BFloat16"), 2),
    **dict.fromkeys(
        ("UInt32", "Int32", "Float32", "Date32", "DateTime", "IPv4", "Decimal32", "Time"), 4
    ),
    **dict.fromkeys(("UInt64", "Int64", "Float64", "DateTime64", "Decimal64", "Time64"), 8),
    **dict.fromkeys(
        (f"Interval{unit}" for unit in (
            *("Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour"),
            *("Day", "Week", "Month", "Quarter", "Year"),
        )),
        8,
    ),
    **dict.fromkeys(("UInt128", "Int128", "UUID", "IPv6", "Decimal128"), 16),
    **dict.fromkeys(("UInt256", "Int256", "Decimal256"), 32),
}  # fmt: skip
_ALIASES: Final[dict[str, str]] = {
    "Point": "Tuple(Float64, Float64)",
    "Ring": "Array(Point)",
    "LineString": "Array(Point)",
    "MultiLineString": "Array(LineString)",
    "Polygon": "Array(Ring)",
    "MultiPolygon": "Array(Polygon)",
}
_INDEX_BYTES: Final = (1, 2, 4, 8)
_PREFIX_BYTES: Final = 8
_HAS_ADDITIONAL_KEYS: Final = 1 << 9
_NEEDS_GLOBAL_DICTIONARY: Final = 1 << 8


class Opaque(Exception):
    """The length of a column of this type can't be computed here."""


class DataType(NamedTuple):
    """``Array(UInt8)`` is ``("Array", ("UInt8",))``: the arguments are text, as written."""

    name: str
    arguments: tuple[str, ...]


@lru_cache(maxsize=4096)
def parse(text: str) -> DataType:
    """Split a type's name from its arguments; raises Opaque for what is not a type's name."""
    text = text.strip()
    found = _NAME.match(text)
    if found is None:
        raise Opaque(text)
    rest = text[found.end() :].strip()
    if not rest:
        return DataType(found[0], ())
    if not (rest.startswith("(") and rest.endswith(")")):
        raise Opaque(text)
    return DataType(found[0], tuple(_split(rest[1:-1])))


def _split(text: str) -> list[str]:
    """Arguments at depth 0, between commas."""
    parts: list[str] = []
    depth = start = at = 0
    while at < len(text):
        char = text[at]
        if char in "'`\"" and (quoted := _QUOTED.match(text, at)) is not None:
            at = quoted.end()
            continue
        if char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
        at += 1
    if last := text[start:].strip():
        parts.append(last)
    return parts


def column_end(data: bytes, at: int, type_text: str, rows: int) -> int:
    """Where the column's data ends that begins at ``at`` (a block without rows has no data at all).

    Raises:
        Opaque: the type's values can't be measured here.
        IndexError: the data ends before the column does, or isn't such a column.
    """
    if not rows:
        return at
    end = _values(data, _prefix(data, at, type_text), type_text, rows)
    if end > len(data):
        raise IndexError(type_text)
    return end


def _prefix(data: bytes, at: int, type_text: str) -> int:
    """Skip what stands before all values: the version of each LowCardinality inside the type."""
    kind = parse(type_text)
    if kind.name == "LowCardinality":
        return at + _PREFIX_BYTES
    for inner in _nested(kind):
        at = _prefix(data, at, inner)
    return at


def _nested(kind: DataType) -> tuple[str, ...]:
    if kind.name in _ALIASES:
        return (_ALIASES[kind.name],)
    if kind.name in ("Array", "Nullable", "Map"):
        return kind.arguments
    if kind.name == "Tuple":
        return tuple(map(_element, kind.arguments))
    if kind.name == "Nested":
        return tuple(map(_element, kind.arguments))
    if kind.name == "SimpleAggregateFunction":
        return kind.arguments[1:2]
    return ()


def _element(text: str) -> str:
    """The type of a Tuple's element, which may have a name before it."""
    quoted = _QUOTED.match(text)
    if quoted is not None:
        return text[quoted.end() :].strip()
    name = _NAME.match(text)
    if name is not None and name.end() < len(text) and text[name.end()] == " ":
        rest = text[name.end() :].strip()
        if not rest.startswith("("):
            return rest
    return text


def _values(data: bytes, at: int, type_text: str, rows: int) -> int:  # noqa: PLR0911
    kind = parse(type_text)
    if kind.name in _FIXED:
        return at + rows * _FIXED[kind.name]
    match kind.name:
        case "String":
            return _strings(data, at, rows)
        case "FixedString":
            return at + rows * int(kind.arguments[0])
        case "Decimal":
            return at + rows * _decimal_bytes(int(kind.arguments[0]))
        case "Nullable":
            return _values(data, at + rows, kind.arguments[0], rows)
        case "Array":
            return _array(data, at, kind.arguments, rows)
        case "Map" | "Nested":
            return _array(data, at, _nested(kind), rows)
        case "Tuple":
            return _each(data, at, _nested(kind), rows) if kind.arguments else at + rows
        case "LowCardinality":
            return _low_cardinality(data, at, kind.arguments[0], rows)
        case "SimpleAggregateFunction":
            return _values(data, at, _nested(kind)[0], rows)
    if kind.name in _ALIASES:
        return _values(data, at, _ALIASES[kind.name], rows)
    raise Opaque(type_text)


def _each(data: bytes, at: int, types: tuple[str, ...], rows: int) -> int:
    for inner in types:
        at = _values(data, at, inner, rows)
    return at


def _array(data: bytes, at: int, types: tuple[str, ...], rows: int) -> int:
    """The ends of the rows as UInt64, then their elements."""
    if not rows:
        return at
    first = at + 8 * rows
    return _each(data, first, types, _uint64(data, first - 8))


def _strings(data: bytes, at: int, rows: int) -> int:
    for _ in range(rows):
        size = data[at]
        at += 1
        if size > 0x7F:
            size, at = varint(data, at - 1)
        at += size
    return at


def _low_cardinality(data: bytes, at: int, inner: str, rows: int) -> int:
    """For each run of rows: the kind of index, a dictionary with its size, an index per row."""
    kind = parse(inner)
    key = kind.arguments[0] if kind.name == "Nullable" else inner
    while rows > 0:
        flags = _uint64(data, at)
        if flags & _NEEDS_GLOBAL_DICTIONARY or not flags & _HAS_ADDITIONAL_KEYS:
            raise Opaque(f"LowCardinality({inner})")
        keys = _uint64(data, at + 8)
        at = _values(data, at + 16, key, keys)
        here = _uint64(data, at)
        if not 0 < here <= rows:
            raise IndexError(inner)
        at += 8 + here * _INDEX_BYTES[flags & 0xFF]
        rows -= here
    return at


def _decimal_bytes(precision: int) -> int:
    return next(size for most, size in ((9, 4), (18, 8), (38, 16), (76, 32)) if precision <= most)


def _uint64(data: bytes, at: int) -> int:
    if at + 8 > len(data):
        raise IndexError(at)
    return int.from_bytes(data[at : at + 8], "little")


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in LEB128 and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise IndexError(at)

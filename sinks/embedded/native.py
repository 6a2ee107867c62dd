"""Native blocks as a client of a given protocol version reads them.

The engine writes blocks for version 0: without a block info, without a flag for custom
serialization, and with ``DateTime`` where the column is ``DateTime('UTC')``. ClickHouse's server
writes them for the version in ``client_protocol_version``; this puts in what is missing. The data
of the columns is passed on as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sinks.embedded.errors import QueryError
from sinks.embedded.native_types import Opaque, column_end, varint

# The versions from which on something is different (ClickHouse's src/Core/ProtocolDefines.h).
TIME_ZONE_IN_DATETIME: Final = 54337
CUSTOM_SERIALIZATION: Final = 54454
OUT_OF_ORDER_BUCKETS: Final = 54480

_BLOCK_INFO: Final = b"\x01\x00" + b"\x02\xff\xff\xff\xff"
_MAX_CANDIDATES: Final = 1000
_DEFAULT_SERIALIZATION: Final = b"\x00"


class Described(NamedTuple):
    """A column of a result, its type with its time zone."""

    name: bytes
    type: str

    def header(self) -> bytes:
        """How a block of version 0 begins this column."""
        text = "DateTime" if self.type.startswith("DateTime(") else self.type
        return _string(self.name) + _string(text.encode())


@dataclass(frozen=True, slots=True)
class _Column:
    """Offsets of a column in its block: the name, the type and the data."""

    name: bytes
    type: str
    data_start: int
    data_end: int


def for_version(version: int, piece: bytes, described: Sequence[Described] | None) -> bytes:
    """Blocks of version 0 as blocks of ``version``.

    ``described`` are the result's columns as DESCRIBE shows them, with their time zones; None where
    that is not known.

    Raises:
        QueryError: NOT_IMPLEMENTED where the end of a column can't be found.
    """
    if version <= 0 or not piece:
        return piece
    info = _BLOCK_INFO + (b"\x03\x00" if version >= OUT_OF_ORDER_BUCKETS else b"") + b"\x00"
    out = bytearray()
    try:
        for counts, columns in _blocks(piece, described or ()):
            out += info
            out += counts
            for i, column in enumerate(columns):
                text = column.type
                if text == "DateTime" and version >= TIME_ZONE_IN_DATETIME and described:
                    text = described[i].type
                out += _string(column.name)
                out += _string(text.encode())
                if version >= CUSTOM_SERIALIZATION:
                    out += _DEFAULT_SERIALIZATION
                out += piece[column.data_start : column.data_end]
    except (Opaque, IndexError, ValueError) as exc:
        raise QueryError.of(
            "NOT_IMPLEMENTED",
            f"The endpoint can't write this result for client_protocol_version={version} "
            f"({type(exc).__name__}: {exc}): cast the column to String, finalize its aggregate "
            "function, or put it last",
        ) from exc
    return bytes(out)


def _blocks(data: bytes, described: Sequence[Described]) -> Iterator[tuple[bytes, list[_Column]]]:
    at = 0
    while at < len(data):
        columns, after = varint(data, at)
        rows, first = varint(data, after)
        ways = _columns(data, first, columns, rows, described)
        found = next(ways, None)
        if found is None:
            raise IndexError(f"a block of {columns} columns and {rows} rows")
        if next(ways, None) is not None:
            raise Opaque("where a column ends is ambiguous")
        yield data[at:first], found
        at = found[-1].data_end if found else first


def _columns(
    data: bytes, at: int, left: int, rows: int, described: Sequence[Described]
) -> Iterator[list[_Column]]:
    """Every way in which ``left`` columns can be read from here: one, unless a type is opaque.

    An opaque column ends where the header of the next one stands, if what follows reads as the
    other columns and ends with the piece; data may contain such a header too, so there may be
    several ways. An opaque column that is the last one takes all that is left of the piece.
    """
    before: list[_Column] = []
    while left:
        name, at = _bytes(data, at)
        type_name, at = _bytes(data, at)
        text = type_name.decode()
        left -= 1
        try:
            end = column_end(data, at, text, rows)
        except Opaque:
            for end in _ends(data, at, described[-left:] if left else ()):
                here = [*before, _Column(name, text, at, end)]
                try:
                    for rest in _columns(data, end, left, rows, described):
                        if (rest[-1].data_end if rest else end) == len(data):
                            yield here + rest
                except (IndexError, UnicodeDecodeError):
                    continue
            return
        before.append(_Column(name, text, at, end))
        at = end
    yield before


def _ends(data: bytes, at: int, following: Sequence[Described]) -> Iterator[int]:
    """Where an opaque column that begins at ``at`` may end."""
    if not following:
        yield len(data)
        return
    header = following[0].header()
    for _ in range(_MAX_CANDIDATES):
        at = data.find(header, at)
        if at < 0:
            return
        yield at
        at += 1
    raise Opaque("where a column ends is ambiguous")


def _bytes(data: bytes, at: int) -> tuple[bytes, int]:
    size, start = varint(data, at)
    if start + size > len(data):
        raise IndexError(at)
    return data[start : start + size], start + size


def _string(text: bytes) -> bytes:
    return _varint(len(text)) + text


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)

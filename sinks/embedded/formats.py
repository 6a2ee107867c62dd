"""Which results can be sent piece by piece.

The engine encodes each piece of a streamed result as if it were a whole one. Where a format has
no header, the pieces are the result; where it has one, it is cut from all but the first; every
other format is made whole, in memory, by the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_TEXT_LINES: Final[dict[str, int]] = {
    **{f"{f}WithNames": 1 for f in ("TSV", "TabSeparated", "JSONCompactEachRow")},
    **{f"{f}WithNamesAndTypes": 2 for f in ("TSV", "TabSeparated", "JSONCompactEachRow")},
    "JSONCompactStringsEachRowWithNames": 1,
    "JSONCompactStringsEachRowWithNamesAndTypes": 2,
}
_PLAIN: Final = frozenset(
    (
        *("TSV", "TabSeparated", "TSVRaw", "TabSeparatedRaw", "TSKV", "CSV", "LineAsString"),
        *("JSONEachRow", "NDJSON", "JSONLines", "JSONStringsEachRow"),
        *("JSONCompactEachRow", "JSONCompactStringsEachRow"),
        *("Native", "RowBinary", "MsgPack", "Null"),
    )
)
# Words that give a result something that only its end can have, or brackets around the rows.
_WHOLE_WORDS: Final = ("totals", "extremes", "output_format_json_array_of_rows")

# Input formats that the engine reads to their end before it parses them.
_HELD_INPUT: Final = (
    "Parquet",
    "ORC",
    "Arrow",
    "ArrowStream",
    "Avro",
    "JSON",
    "JSONCompact",
    "Npy",
)

Header = Callable[[bytes], int]
"""Length of the header with which a piece begins."""


def streamable(output_format: str, sql: str, settings: dict[str, str]) -> bool:
    if header_of(output_format) is None:
        return False
    wanted = " ".join((sql, *settings)).lower()
    return not any(word in wanted for word in _WHOLE_WORDS)


def header_of(output_format: str) -> Header | None:
    """How to measure the header; None for a format that has to be made whole."""
    if output_format in _PLAIN:
        return lambda _: 0
    if output_format in _TEXT_LINES:
        return lambda piece: _lines(piece, _TEXT_LINES[output_format])
    if output_format in ("CSVWithNames", "CSVWithNamesAndTypes"):
        return lambda piece: _csv_lines(piece, 2 if output_format.endswith("Types") else 1)
    if output_format in ("RowBinaryWithNames", "RowBinaryWithNamesAndTypes"):
        return lambda piece: _binary(piece, 2 if output_format.endswith("Types") else 1)
    return None


def held_input(input_format: str) -> bool:
    """Whether the engine keeps all of an INSERT's data in memory before it parses any of it."""
    return input_format in _HELD_INPUT or input_format.startswith("JSONColumns")


def has_header(output_format: str) -> bool:
    return output_format not in _PLAIN


def _lines(piece: bytes, lines: int) -> int:
    end = 0
    for _ in range(lines):
        end = piece.index(b"\n", end) + 1
    return end


def _csv_lines(piece: bytes, lines: int) -> int:
    quoted = False
    for at, char in enumerate(piece):
        if char == ord('"'):
            quoted = not quoted
        elif char == ord("\n") and not quoted:
            lines -= 1
            if not lines:
                return at + 1
    raise ValueError("a CSV header without an end")


def _binary(piece: bytes, strings_per_column: int) -> int:
    columns, at = _varint(piece, 0)
    for _ in range(columns * strings_per_column):
        length, at = _varint(piece, at)
        at += length
    return at


def _varint(piece: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = piece[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at

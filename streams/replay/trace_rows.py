"""The rows of a trace file, with fields that are either read strictly or refused by name."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import IO, Any, NoReturn

from metering.errors import InvalidTrace

MAX_TOKENS = 2**31 - 1
"""Token counts travel to the models as INT32."""

MAX_TIME = 10**15
"""Enough for milliseconds since 1970, and few enough digits to be subtracted exactly."""

_GZIP_MAGIC = b"\x1f\x8b"
_DIGITS = re.compile(r"\d{1,10}", re.ASCII)
_NUMBER = re.compile(r"[-+]?\d{1,16}(\.\d{0,18})?([eE][-+]?\d{1,3})?", re.ASCII)
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it came: texts from CSV; strings, numbers and lists (``typed``) from JSON.

    ``number`` counts the rows from 1, without a header; ``line`` is where it ends in the file.
    """

    path: Path
    number: int
    line: int
    fields: Mapping[str, Any]
    typed: bool

    def refuse(self, field: str, problem: str) -> NoReturn:
        shown = repr(self.fields[field]) if field in self.fields else "missing"
        if len(shown) > 80:
            shown = shown[:77] + "..."
        raise InvalidTrace(
            f"{self.path}: row {self.number} (line {self.line}): {field} is {shown}: {problem}"
        )

    def tokens(self, field: str, *, least: int = 0) -> int:
        """A whole number from ``least`` to 2³¹ - 1; no signs, no underscores, no ``12.0``."""
        given = self.fields.get(field)
        count = -1
        if self.typed:
            count = given if isinstance(given, int) and not isinstance(given, bool) else -1
        elif isinstance(given, str) and _DIGITS.fullmatch(given):
            count = int(given)
        if not least <= count <= MAX_TOKENS:
            self.refuse(field, f"not a whole number from {least} to {MAX_TOKENS}")
        return count

    def number_of(self, field: str) -> Decimal:
        """A finite decimal number, exactly as it is written."""
        given = self.fields.get(field)
        value = Decimal("NaN")
        if self.typed:
            if isinstance(given, int | Decimal) and not isinstance(given, bool):
                value = Decimal(given)
        elif isinstance(given, str) and _NUMBER.fullmatch(given):
            value = Decimal(given)
        if not value.is_finite() or abs(value) > MAX_TIME:
            self.refuse(field, f"not a number from -{MAX_TIME} to {MAX_TIME}")
        return value

    def epoch_seconds(self, field: str) -> Decimal:
        """``2023-11-16 18:17:03.9799600``, to the nanosecond; UTC where no zone is given."""
        given = self.fields.get(field)
        match = _TIMESTAMP.fullmatch(given) if isinstance(given, str) else None
        if match is None:
            self.refuse(field, "not a timestamp like 2023-11-16 18:17:03.9799600")
        seconds, fraction, zone = match.groups()
        try:
            whole = datetime.fromisoformat(seconds + (zone or "+00:00"))
            epoch_s = int(whole.timestamp())
        except (ValueError, OverflowError) as exc:
            self.refuse(field, str(exc))
        return epoch_s + Decimal(f"0.{fraction or 0}")

    def text(self, field: str) -> str:
        """A name of 1 to 256 printable characters."""
        given = self.fields.get(field)
        if not isinstance(given, str) or not 1 <= len(given) <= 256 or not given.isprintable():
            self.refuse(field, "not a text of 1 to 256 printable characters")
        return given

    def ids(self, field: str) -> list[int]:
        """A list of whole numbers."""
        given = self.fields.get(field)
        if not isinstance(given, list):
            self.refuse(field, "not a list")
        for item in given:
            if not isinstance(item, int) or isinstance(item, bool):
                self.refuse(field, f"{item!r} in it is not a whole number")
        return given


def csv_rows(path: Path) -> Iterator[Row]:
    """Rows of a CSV with a header, plain or gzipped.

    Raises:
        InvalidTrace: the file can't be read, has no header, or a row has too many fields.
    """
    with _text(path) as file:
        reader = csv.DictReader(file)
        try:
            if reader.fieldnames is None:
                raise InvalidTrace(f"{path}: empty: a CSV trace begins with its header")
            for number, fields in enumerate(reader, 1):
                present = {name: value for name, value in fields.items() if value is not None}
                row = Row(path, number, reader.line_num, present, typed=False)
                if None in fields:
                    raise InvalidTrace(
                        f"{path}: row {number} (line {row.line}): "
                        f"{fields[None]!r} stands beyond the header's last column"
                    )
                yield row
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as exc:
            raise InvalidTrace(f"{path}: line {reader.line_num + 1} can't be read: {exc}") from exc


def json_rows(path: Path) -> Iterator[Row]:
    """Rows of a JSON Lines file, plain or gzipped; empty lines are passed over.

    Raises:
        InvalidTrace: the file can't be read, or a line is not a JSON object.
    """
    line, number = 0, 0
    with _text(path) as file:
        try:
            for line, text in enumerate(file, 1):
                if not text.strip():
                    continue
                number += 1
                try:
                    fields = json.loads(text, parse_float=Decimal)
                except (ValueError, RecursionError, InvalidOperation) as exc:
                    raise InvalidTrace(
                        f"{path}: row {number} (line {line}): not JSON: {exc}"
                    ) from exc
                if not isinstance(fields, dict):
                    raise InvalidTrace(
                        f"{path}: row {number} (line {line}): not a JSON object: {text[:80]!r}"
                    )
                yield Row(path, number, line, fields, typed=True)
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as exc:
            raise InvalidTrace(f"{path}: line {line + 1} can't be read: {exc}") from exc


def _text(path: Path) -> IO[str]:
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == _GZIP_MAGIC
        if zipped:
            return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as exc:
        raise InvalidTrace(f"{path}: can't be read: {exc.strerror}") from exc

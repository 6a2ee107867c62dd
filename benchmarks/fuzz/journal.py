"""What was sent, by offset, in a few bytes each; and what must be stored of it."""

from __future__ import annotations

import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from benchmarks.fuzz.batches import Batch
from benchmarks.fuzz.kinds import KINDS, Fate, Kind, Made
from streams.publisher import MOST_LETTER_BYTES

Entry = tuple[int, int, int]
"""The kind's number, and what :func:`sums` makes of value and headers."""


def value_sum(value: bytes | None) -> int:
    """Of as much as a dead letter keeps."""
    return zlib.crc32((value or b"")[:MOST_LETTER_BYTES])


@lru_cache(maxsize=256)
def _headers_sum(headers: tuple[tuple[str, bytes | None], ...]) -> int:
    return zlib.crc32(b"\x00".join(str.encode(n) + b"\x01" + (v or b"") for n, v in headers))


def headers_sum(headers: Iterable[tuple[str, bytes | None]]) -> int:
    return _headers_sum(tuple(headers))


class Journal:
    """Offsets begin at 0. What is still on its way to the broker has none yet."""

    def __init__(self) -> None:
        self.kinds: Sequence[Kind] = list(KINDS.values())
        self._numbers = {kind.name: n for n, kind in enumerate(self.kinds)}
        self._kind_at, self._value_at, self._headers_at = array("H"), array("L"), array("L")
        self.sent: Counter[str] = Counter()
        self.batches: dict[tuple[str, int], tuple[Batch, bool]] = {}
        """By source and sequence; and whether its windows count it (a late one's do not)."""

    def __len__(self) -> int:
        return len(self._kind_at)

    def note(self, kind: Kind, made: Made) -> Entry:
        self.sent[kind.name] += 1
        if made.batch is not None:
            batch = made.batch
            self.batches[batch.source, batch.sequence] = batch, kind.fate is not Fate.LATE
        return self._numbers[kind.name], value_sum(made.value), headers_sum(made.headers)

    def place(self, offset: int, entries: Sequence[Entry]) -> None:
        """Raises ValueError: the broker has put something else between."""
        if offset != len(self):
            raise ValueError(f"offset {offset} follows on {len(self) - 1}")
        for kind, value, headers in entries:
            self._kind_at.append(kind)
            self._value_at.append(value)
            self._headers_at.append(headers)

    def kind_at(self, offset: int) -> Kind:
        return self.kinds[self._kind_at[offset]]

    def sums_at(self, offset: int) -> tuple[int, int]:
        """Of value and headers."""
        return self._value_at[offset], self._headers_at[offset]

    def with_fate(self, *fates: Fate) -> int:
        return sum(self.sent[kind.name] for kind in self.kinds if kind.fate in fates)

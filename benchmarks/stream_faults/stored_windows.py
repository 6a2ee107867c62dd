"""Does every window in ClickHouse equal the sums of what was emitted, and is it closed?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.stream_faults.expected import SUMS, Sums, Window
from benchmarks.stream_faults.world import COHORT, REQUIRED_LENGTHS
from sinks.clickhouse.queries import ClickHouseReader

CLOSED_AFTER_S = 20.0
"""A window that ended so long ago must be final in a stream that is quiet."""
MOST_EXAMPLES = 10
_PLAIN = tuple(name for name in SUMS if not name.endswith("_atto"))
_MONEY = tuple(name.removesuffix("_atto") + "_usd" for name in SUMS if name.endswith("_atto"))
_NOTHING = ("retries", "cached_input_tokens", "padding_gpu_ns", "cache_hits", "refused_requests")
"""Columns to which nothing that is emitted adds."""
SQL = f"""
SELECT window_seconds, toUnixTimestamp(window_start), {", ".join(COHORT)},
    {", ".join(_PLAIN)}, {", ".join(_MONEY)}, {" + ".join(_NOTHING)}, final, counted_to
FROM cost_windows
"""  # noqa: S608  # names of our own
KEY = 2 + len(COHORT)


@dataclass(frozen=True, slots=True)
class Row:
    """``other`` is the sum of what must be 0."""

    sums: Sums
    other: int
    final: bool
    counted_to: int


@dataclass(slots=True)
class Windows:
    told: int = 0
    by_length: dict[int, int] = field(default_factory=dict)
    missing: int = 0
    unknown: int = 0
    twice: int = 0
    wrong: int = 0
    open: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        return not (self.missing or self.unknown or self.twice or self.wrong or self.open)


def read_windows(reader: ClickHouseReader) -> list[tuple[Window, Row]]:
    """Raises QueryFailed: ClickHouse does not answer."""
    return [row_of(row) for row in reader.rows(SQL)]


def row_of(row: tuple[Any, ...]) -> tuple[Window, Row]:
    *values, other, final, counted_to = row[KEY:]
    plain, money = values[: len(_PLAIN)], values[len(_PLAIN) :]
    sums = (*map(int, plain), *(atto(cost) for cost in money))
    return tuple(row[:KEY]), Row(sums, int(other), bool(final), int(counted_to))


def atto(cost: Any) -> int:
    """Of a decimal with 18 places, exactly."""
    sign, digits, exponent = cost.as_tuple()
    whole = int("".join(map(str, digits)))
    return int(-whole if sign else whole) * int(10 ** (18 + exponent))


def lengths(rows: Iterable[tuple[Window, Row]]) -> list[int]:
    """Those that there must be and those that there are."""
    return sorted({*REQUIRED_LENGTHS, *(key[0] for key, _ in rows)})


def check_windows(
    rows: Iterable[tuple[Window, Row]], expected: Mapping[Window, Sums], now_s: float
) -> Windows:
    found = Windows()
    left = dict(expected)
    seen: set[Window] = set()
    for key, row in rows:
        found.told += 1
        found.by_length[key[0]] = found.by_length.get(key[0], 0) + 1
        if key in seen:
            found.twice += 1
            found.examples.append(f"twice: {key}")
            continue
        seen.add(key)
        sums = left.pop(key, None)
        if sums is None:
            found.unknown += 1
            found.examples.append(f"nobody's: {key}")
        elif row.sums != sums or row.other:
            found.wrong += 1
            apart = {n: (a, b) for n, a, b in zip(SUMS, row.sums, sums, strict=True) if a != b}
            found.examples.append(f"wrong: {key}: {apart or row.other} (there, expected)")
        if not row.final and key[1] + key[0] + CLOSED_AFTER_S < now_s:
            found.open += 1
            found.examples.append(f"open: {key}")
    found.missing = len(left)
    found.examples += [f"missing: {key}" for key in left]
    del found.examples[MOST_EXAMPLES:]
    return found

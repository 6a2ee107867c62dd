"""What usage adds to windows: sums per cohort and 10 s of event time, on their way to the totals.

Whoever prices a partition of the usage topic counts what it took into additions; whoever keeps the
totals of some cohorts adds them up (``metering.totals``). Between the two lies a topic.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from metering.columns import Whole, whole
from metering.errors import MeteringError, UnreadableUsage
from metering.priced import completed
from metering.windows import Cohort, Tally

TALLY: tuple[str, ...] = tuple(f.name for f in fields(Tally))
FORMAT = 2
_READ = (1, FORMAT)
"""In the first one, the sums of priced requests are missing."""


@dataclass(frozen=True, slots=True)
class Additions:
    """Row ``n`` adds ``values[i][n]`` to the field ``TALLY[i]`` of ``cohorts[n]``, in the windows
    around ``start_s[n]``, all but the ``level[n]`` shortest: for these it came too late."""

    cohorts: Sequence[Cohort]
    start_s: NDArray[np.int64]
    level: NDArray[np.int64]
    values: Sequence[Whole]

    def take(self, rows: Sequence[int]) -> Additions:
        at = np.array(rows, np.intp)
        return Additions(
            [self.cohorts[n] for n in rows],
            self.start_s[at],
            self.level[at],
            [v[at] for v in self.values],
        )


NO_ADDITIONS = Additions(
    (), np.zeros(0, np.int64), np.zeros(0, np.int64), [np.zeros(0, np.int64)] * len(TALLY)
)


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a partition of the usage topic has come, of ``partitions`` in all.

    ``watermark_ns`` is by its events alone, 0 before the first. Windows that end by ``closing_ns``
    may be told as final: that is the watermark, or later where the partition is quiet and read to
    its end. ``counted_to`` is the last offset that is counted. ``sequence`` grows by one with each
    take; -1 says that nothing but time has passed.
    """

    partition: int
    partitions: int
    sequence: int
    counted_to: int
    watermark_ns: int
    closing_ns: int


def split(additions: Additions, ways: int) -> list[Additions]:
    """One for each of the ways: a cohort goes the same way always."""
    if ways == 1:
        return [additions]
    rows: list[list[int]] = [[] for _ in range(ways)]
    for n, cohort in enumerate(additions.cohorts):
        rows[way_of(cohort, ways)].append(n)
    return [additions.take(own) for own in rows]


def way_of(cohort: Cohort, ways: int) -> int:
    return zlib.crc32("\0".join(cohort).encode()) % ways


_MARK = tuple(f.name for f in fields(Mark))
_Sent: Any = msgspec.defstruct(  # What comes from another version has another ``format``.
    "_Sent",
    [
        ("format", int),
        *((name, int) for name in _MARK),
        ("cohorts", list[Cohort]),
        ("start_s", list[int]),
        ("level", list[int]),
        ("values", list[list[int]]),
    ],
)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Sent).decode
_decode_format = msgspec.json.Decoder(msgspec.defstruct("_Format", [("format", int)])).decode


_MOST = 2**63 - 1


def _format_of(value: bytes) -> int | None:
    """``None``: it says none."""
    try:
        return _decode_format(value).format  # type: ignore[attr-defined,no-any-return]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def encode(mark: Mark, additions: Additions) -> bytes:
    return _encode(
        _Sent(
            FORMAT,
            *astuple(mark),
            additions.cohorts,
            additions.start_s.tolist(),
            additions.level.tolist(),
            [v.tolist() for v in additions.values],
        )
    )


def decode(value: bytes) -> tuple[Mark, Additions]:
    """What :func:`encode` made, here or in an earlier version.

    Raises:
        MeteringError: it was made by a later version.
        UnreadableUsage: nobody has made it.
    """
    try:
        sent = _decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        if _format_of(value) in (None, *_READ):
            raise UnreadableUsage("malformed", f"no additions: {exc}") from exc
        raise MeteringError(f"additions that this version does not read: {exc}") from exc
    if sent.format not in _READ or len(sent.values) > len(TALLY):
        raise MeteringError(
            f"additions of format {sent.format!r} with {len(sent.values)} fields, not {FORMAT} "
            f"with {len(TALLY)}"
        )
    numbers = [getattr(sent, name) for name in _MARK]
    columns = (sent.start_s, sent.level, *sent.values)
    if any(len(column) != len(sent.cohorts) for column in columns):
        raise UnreadableUsage("malformed", "additions whose columns differ in length")
    if any(abs(n) > _MOST for n in (*numbers, *sent.start_s, *sent.level)):
        raise UnreadableUsage("malformed", f"additions with a number beyond {_MOST}")
    return Mark(*numbers), Additions(
        sent.cohorts,
        np.array(sent.start_s, np.int64),
        np.array(sent.level, np.int64),
        completed([whole(v) for v in sent.values], TALLY),
    )

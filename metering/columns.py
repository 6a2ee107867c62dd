"""Columns over many rows: three kinds, with the little arithmetic that all rules share.

Integers stay integers: what might not fit into 64 bits is reckoned with Python's own, in arrays of
objects, at the same lines of code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

Whole: TypeAlias = NDArray[Any]
"""int64, or objects that are Python integers."""
SAFE = 2**62
"""Sums below it are right in 64 bits."""
_json = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Coded:
    """Few values, all distinct: row ``n`` has ``values[codes[n]]``."""

    values: Sequence[Any]
    codes: NDArray[np.int32]

    def tolist(self) -> list[Any]:
        few = np.empty(len(self.values), object)
        few[:] = self.values
        rows: list[Any] = few[self.codes].tolist()
        return rows

    def take(self, rows: NDArray[Any]) -> Coded:
        return Coded(self.values, self.codes[rows])


@dataclass(frozen=True, slots=True)
class Ints:
    """Integers; where ``known`` is false the row has none."""

    values: Whole
    known: NDArray[np.bool_] | None = None

    def tolist(self) -> list[Any]:
        values: list[Any] = self.values.tolist()
        if self.known is None:
            return values
        return [v if k else None for v, k in zip(values, self.known.tolist(), strict=True)]

    def take(self, rows: NDArray[Any]) -> Ints:
        return Ints(self.values[rows], None if self.known is None else self.known[rows])


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts that are mostly distinct; ``metering.packed.Packed`` is the same without objects."""

    values: list[str]

    def tolist(self) -> list[Any]:
        return self.values

    def take(self, rows: NDArray[Any]) -> Texts:
        return Texts(np.array(self.values, object)[rows].tolist())

    def json(self, start: int, stop: int) -> tuple[bytes]:
        """The list of the rows from one to before another, in pieces."""
        return (_json(self.values[start:stop]),)

    def utf8(self) -> None:
        """They are objects already."""
        return


class Distinct(Protocol):
    """Texts that are mostly distinct."""

    def tolist(self) -> list[Any]: ...
    def take(self, rows: NDArray[Any]) -> Distinct: ...
    def json(self, start: int, stop: int) -> Sequence[bytes | memoryview]: ...
    def utf8(self) -> tuple[NDArray[np.uint8], NDArray[np.int32]] | None: ...


Column: TypeAlias = Coded | Ints | Distinct


def constant(column: Column) -> bool:
    """Whether all rows are known to have one value; there is at least one row."""
    if isinstance(column, Coded):
        return _alike(column.codes)
    if isinstance(column, Ints):
        known = column.known
        if known is not None and not known.all():
            return not known.any()
        return _alike(column.values)
    return False


def _alike(values: NDArray[Any]) -> bool:
    return bool(values[0] == values[-1] and (values == values[0]).all())


def used_codes(codes: NDArray[np.int32], count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which of the codes below ``count`` are there, in order, and the place among them for each."""
    places = np.zeros(count, np.intp)
    places[codes] = 1
    used = np.flatnonzero(places)
    places[used] = np.arange(len(used))
    return used, places[codes]


def order_of(keys: NDArray[Any], below: int) -> NDArray[np.intp]:
    """Places in the order of the keys, equal ones as they are; keys are from 0 to before ``below``.
    Those of 16 bits numpy sorts by their digits, in a fraction of the time."""
    return np.argsort(keys.astype(np.uint16) if below <= 2**16 else keys, kind="stable")


def coded(values: Sequence[Any]) -> Coded:
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return Coded(list(places), np.array(list(map(places.__getitem__, values)), np.int32))


def recoded(values: Sequence[Any], codes: NDArray[np.int32]) -> Coded:
    """``values[codes[n]]`` in row ``n``; ``values`` need not be distinct."""
    few = coded(values)
    return Coded(few.values, few.codes[codes])


def whole(values: Sequence[int]) -> Whole:
    """In 64 bits, if all of them fit."""
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return np.array(values, object)


def fits(values: Whole, count: int) -> bool:
    """Whether ``count`` of them can be added in 64 bits."""
    return values.dtype != object and (
        values.size == 0 or max(int(values.max()), -int(values.min())) * max(1, count) < SAFE
    )


def safe(values: Whole, count: int) -> Whole:
    """The same, so that ``count`` of them can be added."""
    return values if fits(values, count) else values.astype(object)


def segment_sums(values: Whole, starts: NDArray[np.intp]) -> Whole:
    """Sum of each segment; none is empty."""
    result: Whole = np.add.reduceat(safe(values, values.shape[0]), starts, axis=0)
    return result


def run_starts(keys: NDArray[Any]) -> NDArray[np.intp]:
    """Where runs of equal columns begin in ``keys``, one row for each part of the key."""
    return np.flatnonzero(np.r_[True, (keys[:, 1:] != keys[:, :-1]).any(axis=0)])

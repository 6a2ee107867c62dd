"""A tenant's columns as JSON, for some of the lines at a time: by the compiled writer, where there
is one, else here. Both write the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from metering.columns import Coded, Column, Ints, used_codes
from metering.compiled import packed, writer
from metering.money_columns import dollars

_json = msgspec.json.Encoder().encode
Write: TypeAlias = Callable[[bytes, int, int], bytes]
"""The head, all columns for the lines from one to before another, and a brace."""
Followers: TypeAlias = Callable[[list[int]], bytes]
"""What is told of the columns that follow the leader, for those of its codes that are used."""


@dataclass(frozen=True, slots=True)
class Part:
    """A column, and what is written before it. The values of one that is coded are JSON."""

    before: bytes
    column: Column
    is_money: bool = False

    def take(self, rows: NDArray[Any]) -> Part:
        return Part(self.before, self.column.take(rows), self.is_money)


def writer_of(
    order: NDArray[np.intp], parts: Sequence[Part], leader: Part | None, followers: Followers
) -> Write:
    """For lines in this order."""
    # Column by column: each fits the processor's cache, and all of them do not.
    taken = [part.take(order) for part in parts]
    led = None if leader is None else leader.take(order)
    if writer is not None:
        compiled = [_compiled(part) for part in taken]
        if None not in compiled:
            its = None if led is None else _compiled(led)
            return writer.Writer(len(order), compiled, its, followers).message
    return in_python(taken, led, followers)


def _compiled(part: Part) -> writer.Column | None:
    """``None``: it has numbers of more than 64 bits, or texts that are objects."""
    column = part.column
    if isinstance(column, Coded):
        codes = column.codes.astype(np.int32, copy=False)
        return writer.Column(part.before, writer.CODES, codes, texts=column.values)
    if isinstance(column, Ints):
        if column.values.dtype != np.int64 or (part.is_money and column.values.min() < 0):
            return None
        kind = writer.DOLLARS if part.is_money else writer.INTS
        return writer.Column(part.before, kind, column.values, column.known)
    if isinstance(column, packed.Packed):
        return writer.Column(part.before, writer.PACKED, column.data, offsets=column.offsets)
    return None


def in_python(parts: Sequence[Part], leader: Part | None, followers: Followers) -> Write:
    """Without a compiler; and where numbers have more than 64 bits, or texts are objects."""

    def write(head: bytes, start: int, stop: int) -> bytes:
        pieces = [head]
        for part in parts:
            pieces += [part.before, _column(part, start, stop)]
        if leader is not None:
            values, codes, used = _few(leader.column, start, stop)
            pieces += [leader.before, b'{"values":[%b],"codes":%b}' % (values, codes)]
            pieces.append(followers(used))
        return b"".join([*pieces, b"}"])

    return write


def _column(part: Part, start: int, stop: int) -> bytes:
    if isinstance(part.column, Coded):
        values, codes, used = _few(part.column, start, stop)
        return values if len(used) == 1 else b'{"values":[%b],"codes":%b}' % (values, codes)
    column = part.column.take(np.arange(start, stop))
    if part.is_money and isinstance(column, Ints):
        return _json(dollars(column))
    return _json(column.tolist())


def _few(column: Any, start: int, stop: int) -> tuple[bytes, bytes, list[int]]:
    """With the values alone that are used: the others are other tenants'."""
    used, own = used_codes(column.codes[start:stop], len(column.values))
    values = b",".join([column.values[n] for n in used.tolist()])
    return values, _json(own.tolist()), used.tolist()

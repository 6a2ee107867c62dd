"""Rows of windows, many at once: what ``metering.costs.WindowRow`` is for one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from pydantic_core import to_json

from metering.additions import TALLY
from metering.amounts import Amounts, quotients
from metering.columns import Ints, Whole, whole
from metering.compiled import writer
from metering.costs import WindowRow
from metering.money import atto_usd
from metering.priced import PRICED, UNKNOWN
from metering.window_sums import Words, whole_of, words_of
from metering.windows import Cohort, WindowKey, row_of

COSTS = {
    "cost_usd": "cost_atto",
    "input_cost_usd": "input_cost_atto",
    "output_cost_usd": "output_cost_atto",
}
"""Fields of a row, and which sums they are."""
COUNTS: tuple[str, ...] = tuple(name for name in TALLY if name not in COSTS.values())
"""The other sums."""


class Told(NamedTuple):
    """Rows of one window: ``words[n]`` are the sums of ``cohorts[n]``."""

    key: WindowKey
    final: bool
    counted_to: int
    cohorts: Sequence[Cohort]
    words: Words


@dataclass(frozen=True, slots=True)
class WindowColumns:
    """What is told of each row, in the order of the rows."""

    counts: Mapping[str, Ints]
    money: Mapping[str, Amounts]

    def __iter__(self) -> Iterator[tuple[str, Ints | Amounts]]:
        """All of them, by name."""
        yield from self.counts.items()
        yield from self.money.items()


@dataclass(frozen=True)
class WindowRows:
    told: Sequence[Told] = ()

    @classmethod
    def of(cls, rows: Sequence[WindowRow]) -> WindowRows:
        """Rows that are objects: for tests, and whoever has few."""
        return cls([_told(row) for row in rows])

    def __len__(self) -> int:
        return sum(len(told.cohorts) for told in self.told)

    def __iter__(self) -> Iterator[WindowRow]:
        """Row by row: for tests, and whoever has few."""
        for key, final, counted_to, cohorts, words in self.told:
            for cohort, sums in zip(cohorts, whole_of(words).tolist(), strict=True):
                yield row_of(key, cohort, sums, final, counted_to)

    @cached_property
    def columns(self) -> WindowColumns:
        """Of at least one row."""
        words = np.concatenate([told.words for told in self.told])
        high, low = words[..., 1], words[..., 0]
        sums = {name: whole_of(words[:, TALLY.index(name)]) for name in COUNTS}
        money = {
            name: Amounts(high[:, n], low[:, n])
            for name, n in ((name, TALLY.index(atto)) for name, atto in COSTS.items())
        }
        money["usd_per_million_input_tokens"] = quotients(
            money["input_cost_usd"], sums["priced_input_tokens"], 10**6
        )
        money["usd_per_million_output_tokens"] = quotients(
            money["output_cost_usd"], sums["priced_output_tokens"], 10**6
        )
        money["usd_per_request"] = quotients(money["cost_usd"], sums["priced_requests"])
        counts = {
            name: _known(values) if name in PRICED else Ints(values)
            for name, values in sums.items()
        }
        return WindowColumns(counts, money)


def values_of(rows: WindowRows) -> Iterator[bytes]:
    """A ``WindowRow`` in JSON for each; dollars with all of their 18 decimals."""
    if not rows:
        return iter(())
    heads = [head for told in rows.told for head in _heads(told)]
    parts = {
        b'%b"%b":' % (b"," if n else b"", name.encode()): column
        for n, (name, column) in enumerate(rows.columns)
    }
    if writer is not None:
        compiled = [_compiled(before, column) for before, column in parts.items()]
        if None not in compiled:
            return iter(writer.rows(heads, compiled, b"}"))
    return in_python(heads, parts)


def _known(sums: Whole) -> Ints:
    """Those that are not below 0."""
    known = (sums >= 0).astype(np.bool_)
    return Ints(sums) if known.all() else Ints(whole(np.where(known, sums, 0).tolist()), known)


def _compiled(before: bytes, column: Ints | Amounts) -> writer.Column | None:
    """``None``: it has numbers of more than 64 bits."""
    if isinstance(column, Amounts):
        kind, dollars = writer.AMOUNTS, column.dollars
        return writer.Column(before, kind, dollars, column.known, atto=column.atto)
    if column.values.dtype != np.int64:
        return None
    return writer.Column(before, writer.INTS, column.values, column.known)


def in_python(heads: Sequence[bytes], parts: Mapping[bytes, Ints | Amounts]) -> Iterator[bytes]:
    """Without a compiler; and where numbers have more than 64 bits."""
    columns = [[before + text for text in _texts(column)] for before, column in parts.items()]
    for head, *texts in zip(heads, *columns, strict=True):
        yield b"".join([head, *texts, b"}"])


def _texts(column: Ints | Amounts) -> list[bytes]:
    if isinstance(column, Ints):
        return [b"null" if value is None else b"%d" % value for value in column.tolist()]
    known = np.ones(len(column.atto), np.bool_) if column.known is None else column.known
    return [
        b'"%d.%018d"' % (dollars, atto) if is_known else b"null"
        for dollars, atto, is_known in zip(
            column.dollars.tolist(), column.atto.tolist(), known.tolist(), strict=True
        )
    ]


def _heads(told: Told) -> list[bytes]:
    key = told.key
    before = b'{"window_start_ms":%d,"window_seconds":%d,' % (key.start_s * 1000, key.seconds)
    final = b"true" if told.final else b"false"
    behind = b',"final":%b,"counted_to":%d,' % (final, told.counted_to)
    return [before + _cohort_json(cohort) + behind for cohort in told.cohorts]


@lru_cache(16_384)
def _cohort_json(cohort: Cohort) -> bytes:
    tenant, model, region = cohort
    return to_json({"tenant": tenant, "model": model, "region": region})[1:-1]


def _told(row: WindowRow) -> Told:
    fields = {atto: name for name, atto in COSTS.items()}
    sums = [
        atto_usd(getattr(row, fields[name])) if name in fields else getattr(row, name)
        for name in TALLY
    ]
    sums = [UNKNOWN if value is None else value for value in sums]
    key = WindowKey(row.window_start_ms // 1000, row.window_seconds)
    cohort = (row.tenant, row.model, row.region)
    words = words_of([np.array([value], object) for value in sums])
    return Told(key, row.final, row.counted_to, [cohort], words)

"""Rows of windows, many at once: what ``metering.costs.WindowRow`` is for one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain, repeat
from typing import Any, NamedTuple

import numpy as np
from pydantic_core import to_json

from metering.additions import TALLY
from metering.amounts import Amounts, amounts, quotients
from metering.columns import Whole
from metering.costs import WindowRow
from metering.money import atto_usd
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

    counts: Mapping[str, Whole]
    money: Mapping[str, Amounts]


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
        counts = {name: whole_of(words[:, TALLY.index(name)]) for name in COUNTS}
        money = {
            name: amounts(high[:, n], low[:, n])
            for name, n in ((name, TALLY.index(atto)) for name, atto in COSTS.items())
        }
        money["usd_per_million_input_tokens"] = quotients(
            money["input_cost_usd"], counts["input_tokens"], 10**6
        )
        money["usd_per_million_output_tokens"] = quotients(
            money["output_cost_usd"], counts["output_tokens"], 10**6
        )
        money["usd_per_request"] = quotients(
            money["cost_usd"], counts["requests"] - counts["unpriced_requests"]
        )
        return WindowColumns(counts, money)


def values_of(rows: WindowRows) -> Iterator[bytes]:
    """A ``WindowRow`` in JSON for each; dollars with all of their 18 decimals."""
    if not rows:
        return
    heads = chain.from_iterable(map(_heads, rows.told))
    form, numbers = _form(rows.columns)
    told = zip(*numbers, strict=True) if numbers else repeat((), len(rows))
    for head, row in zip(heads, told, strict=True):
        yield (head + form % row).encode()


def _heads(told: Told) -> list[str]:
    key = told.key
    before = f'{{"window_start_ms":{key.start_s * 1000},"window_seconds":{key.seconds},'
    final = "true" if told.final else "false"
    behind = f',"final":{final},"counted_to":{told.counted_to},'
    return [before + _cohort_json(cohort) + behind for cohort in told.cohorts]


@lru_cache(16_384)
def _cohort_json(cohort: Cohort) -> str:
    tenant, model, region = cohort
    return to_json({"tenant": tenant, "model": model, "region": region})[1:-1].decode()


def _form(columns: WindowColumns) -> tuple[str, list[list[Any]]]:
    """The end of all rows, and what differs from row to row in it: many columns are 0 in all."""
    differs: list[list[Any]] = []

    def part(values: Whole, pattern: str) -> str:
        if (values == values[0]).all():
            same: str = pattern % values[0]
            return same
        differs.append(values.tolist())
        return pattern

    def money(amounts: Amounts) -> str:
        known = amounts.known
        if known is None or known.all():
            return f'"{part(amounts.dollars, "%d")}.{part(amounts.atto, "%018d")}"'
        pairs = zip(amounts.dollars.tolist(), amounts.atto.tolist(), known.tolist(), strict=True)
        differs.append(
            [f'"{usd}.{atto:018d}"' if is_known else "null" for usd, atto, is_known in pairs]
        )
        return "%s"

    texts = [f'"{name}":{part(values, "%d")}' for name, values in columns.counts.items()]
    texts += [f'"{name}":{money(amounts)}' for name, amounts in columns.money.items()]
    return ",".join(texts) + "}", differs


def _told(row: WindowRow) -> Told:
    fields = {atto: name for name, atto in COSTS.items()}
    sums = [
        atto_usd(getattr(row, fields[name])) if name in fields else getattr(row, name)
        for name in TALLY
    ]
    key = WindowKey(row.window_start_ms // 1000, row.window_seconds)
    cohort = (row.tenant, row.model, row.region)
    words = words_of([np.array([value], object) for value in sums])
    return Told(key, row.final, row.counted_to, [cohort], words)

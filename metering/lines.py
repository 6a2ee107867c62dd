"""Priced lines as columns: what ``metering.costs.CostLine`` is for one request, for many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metering.columns import SAFE, Coded, Column, Ints, Texts, coded, order_of, run_starts
from metering.costs import CostLine
from metering.money import atto_usd, usd

MONEY = ("cost_usd", "input_cost_usd", "output_cost_usd")
"""Columns of attodollars; a line without a price has none."""


@dataclass(frozen=True, slots=True)
class CostLines:
    """``columns`` has the fields of ``CostLine``, those of ``MONEY`` in attodollars."""

    count: int
    columns: Mapping[str, Column]

    @classmethod
    def of(cls, lines: Sequence[CostLine]) -> CostLines:
        """Lines that are objects, as columns: for tests, and whoever has few."""
        if not lines:
            return NO_LINES
        columns = {name: _column(name, [getattr(x, name) for x in lines]) for name in _FIELDS}
        return cls(len(lines), columns)

    def take(self, rows: NDArray[Any]) -> CostLines:
        return CostLines(len(rows), {name: c.take(rows) for name, c in self.columns.items()})

    def coded(self, name: str) -> Coded:
        column = self.columns[name]
        assert isinstance(column, Coded)  # noqa: S101  # whoever asks knows the columns
        return column

    def ints(self, name: str) -> Ints:
        column = self.columns[name]
        assert isinstance(column, Ints)  # noqa: S101  # whoever asks knows the columns
        return column

    def __iter__(self) -> Iterator[CostLine]:
        """Line by line: for tests, and whoever has few."""
        if self.count == 0:
            return
        lists = {name: column.tolist() for name, column in self.columns.items()}
        for name in MONEY:
            lists[name] = [None if atto is None else usd(atto) for atto in lists[name]]
        for values in zip(*lists.values(), strict=True):
            yield CostLine.model_construct(**dict(zip(lists, values, strict=True)))


_FIELDS = tuple(CostLine.model_fields)


def _column(name: str, values: list[Any]) -> Column:
    if name in MONEY:
        values = [None if v is None else atto_usd(v) for v in values]
    elif name == "request_id":
        return Texts(values)
    kinds = set(map(type, values)) - {type(None)}
    if not kinds <= {int, bool} or (not kinds and name not in (*MONEY, *_NULLABLE_INTS)):
        return coded(values)
    known = None if None not in values else np.array([v is not None for v in values], np.bool_)
    plain = [0 if v is None else v for v in values]
    return Ints(np.array(plain, object if max(plain) >= SAFE else None), known)


_NULLABLE_INTS = ("queue_ns", "prefill_gpu_ns", "decode_gpu_ns")
NO_LINES = CostLines(0, {})


def tenant_order(lines: CostLines) -> tuple[NDArray[np.intp], list[tuple[str, int, int]]]:
    """The lines' places in the order of their tenants, and where each tenant's lie (from, to). A
    tenant's keep their order; there is at least one line."""
    tenants = lines.coded("tenant")
    order = order_of(tenants.codes, len(tenants.values))
    codes = tenants.codes[order]
    starts = run_starts(codes[None]).tolist()
    places = [
        (tenants.values[codes[start]], start, end)
        for start, end in zip(starts, [*starts[1:], lines.count], strict=True)
    ]
    return order, places

"""Columns of priced lines as an Arrow table, in the types of ``cost_request_lines``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from metering.columns import Coded, Column, Ints
from metering.lines import MONEY, CostLines
from metering.money import usd

_NANOSECONDS = pa.timestamp("ns", "UTC")
_COST = pa.decimal128(38, 18)
_PRICE = pa.decimal128(27, 9)


def table_of(lines: CostLines) -> Any:
    """A ``pyarrow.Table`` with a row for each line."""
    arrays = {
        "time" if name == "time_ns" else name: _array(name, column)
        for name, column in lines.columns.items()
    }
    return pa.table(arrays)


def _array(name: str, column: Column) -> Any:
    if name == "time_ns" and isinstance(column, Ints):
        return pa.array(column.values, _NANOSECONDS)
    if name in MONEY and isinstance(column, Ints):
        return _money(column)
    if isinstance(column, Coded):
        kind = _PRICE if name == "usd_per_gpu_hour" else pa.string()
        few = pa.array(column.values, kind)
        if few.null_count:
            return few.take(pa.array(column.codes))
        return pa.DictionaryArray.from_arrays(pa.array(column.codes), few)
    if isinstance(column, Ints):
        missing = None if column.known is None else ~column.known
        return pa.array(column.values, mask=missing)
    return pa.array(column.values, pa.string())


def _money(column: Ints) -> Any:
    """Attodollars are the decimal's own integers; 128 bits hold two words, the low one first."""
    if column.values.dtype == object:
        return pa.array([None if a is None else usd(a) for a in column.tolist()], _COST)
    words = np.zeros((len(column.values), 2), np.int64)
    words[:, 0] = column.values
    known = None
    if column.known is not None:
        known = pa.py_buffer(np.packbits(column.known, bitorder="little").tobytes())
    buffers = [known, pa.py_buffer(words)]
    return pa.Array.from_buffers(_COST, len(column.values), buffers)

"""Columns of priced lines as an Arrow table, in the types of ``cost_request_lines``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from metering.columns import Coded, Column, Distinct, Ints
from metering.lines import MONEY, CostLines
from metering.money import usd

_NANOSECONDS = pa.timestamp("ns", "UTC")
COST = pa.decimal128(38, 18)
_PRICE = pa.decimal128(27, 9)


def table_of_all(parts: Sequence[CostLines]) -> Any:
    """A ``pyarrow.Table`` with a row for each line of each of the parts; there is at least one."""
    tables = [table_of(lines) for lines in parts]
    if len(tables) == 1:
        return tables[0]
    for name in tables[0].column_names:
        if len({table.schema.field(name).type for table in tables}) > 1:
            tables = [_spelled_out(table, name) for table in tables]
    return pa.concat_tables(tables).unify_dictionaries()


def _spelled_out(table: Any, name: str) -> Any:
    """With the column's values in place of a dictionary, which not all of them have."""
    column = table[name]
    if not pa.types.is_dictionary(column.type):
        return table
    value_type = column.type.value_type
    return table.set_column(table.column_names.index(name), name, column.cast(value_type))


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
    return _texts(column)


def _texts(column: Distinct) -> Any:
    packed = column.utf8()
    if packed is None:
        return pa.array(column.tolist(), pa.string())
    data, offsets = map(pa.py_buffer, packed)
    return pa.Array.from_buffers(pa.string(), len(packed[1]) - 1, [None, offsets, data])


def _money(column: Ints) -> Any:
    """Attodollars are the decimal's own integers; 128 bits hold two words, the low one first."""
    if column.values.dtype == object:
        return pa.array([None if a is None else usd(a) for a in column.tolist()], COST)
    words = np.zeros((len(column.values), 2), np.int64)
    words[:, 0] = column.values
    return decimals(words, column.known)


def decimals(words: NDArray[Any], known: NDArray[np.bool_] | None) -> Any:
    """Of the decimals' own integers, two words each, the low one first."""
    bits = None
    if known is not None:
        bits = pa.py_buffer(np.packbits(known, bitorder="little").tobytes())
    return pa.Array.from_buffers(COST, len(words), [bits, pa.py_buffer(words)])

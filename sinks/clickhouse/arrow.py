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
_SMALL = ("position", "speedup", "rows", "batch_size")
"""Below 2^32 by the laws of usage."""
DEFAULTS = {
    "cached_input_tokens": 0, "reasoning_tokens": 0, "padding_gpu_ns": 0,
    "queue_ns": None, "prefill_gpu_ns": None, "decode_gpu_ns": None, "retry_of": None,
    "invalid": "", "batch_invalid": "",
}  # fmt: skip
"""What ``cost_request_lines`` has where nothing is said."""


def table_of_all(parts: Sequence[CostLines]) -> Any:
    """A ``pyarrow.Table`` with a row for each line of each of the parts; there is at least one."""
    if len(parts) == 1:
        return table_of(parts[0], short=True)
    tables = [table_of(lines) for lines in parts]
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


def table_of(lines: CostLines, *, short: bool = False) -> Any:
    """A ``pyarrow.Table`` with a row for each line. A ``short`` one can't be put together with
    others: codes of dictionaries have 16 bits where there are few values, and columns that say the
    same as the table's defaults are left out."""
    arrays = {
        "time" if name == "time_ns" else name: _array(name, column, short)
        for name, column in lines.columns.items()
        if not (short and name in DEFAULTS and _is_all(column, DEFAULTS[name]))
    }
    return pa.table(arrays)


def _is_all(column: Column, value: int | str | None) -> bool:
    if isinstance(column, Coded):
        return column.values == [value]
    if not isinstance(column, Ints):
        return False
    if value is None:
        return column.known is not None and not column.known.any()
    return column.known is None and not column.values.any()


def _array(name: str, column: Column, short: bool) -> Any:
    if name == "time_ns" and isinstance(column, Ints):
        return pa.array(column.values, _NANOSECONDS)
    if name in MONEY and isinstance(column, Ints):
        return _money(column)
    if isinstance(column, Coded):
        kind = _PRICE if name == "usd_per_gpu_hour" else pa.string()
        few = pa.array(column.values, kind)
        if few.null_count:
            return few.take(pa.array(column.codes))
        is_short = short and len(few) <= np.iinfo(np.int16).max
        codes = column.codes.astype(np.int16) if is_short else column.codes
        return pa.DictionaryArray.from_arrays(pa.array(codes), few, safe=False)
    if isinstance(column, Ints):
        missing = None if column.known is None else ~column.known
        values = column.values.astype(np.uint32) if name in _SMALL else column.values
        return pa.array(values, mask=missing)
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

"""Rows of windows as an Arrow table, in the types of ``cost_window_rows``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from metering.amounts import words
from metering.window_rows import WindowRows
from sinks.clickhouse.arrow import decimals

_MILLISECONDS = pa.timestamp("ms", "UTC")


def window_table(*parts: WindowRows) -> Any:
    """A ``pyarrow.Table`` with a row for each; there is at least one in each of the parts."""
    return pa.concat_tables(map(_table, parts)).unify_dictionaries()


def _table(rows: WindowRows) -> Any:
    sizes = [len(told.cohorts) for told in rows.told]

    def each(values: list[int]) -> Any:
        return np.repeat(np.array(values, np.int64), sizes)

    final = each([told.final for told in rows.told])
    counted_to = each([told.counted_to for told in rows.told])
    columns = {
        "window_start": pa.array(each([t.key.start_s * 1000 for t in rows.told]), _MILLISECONDS),
        "window_seconds": pa.array(each([told.key.seconds for told in rows.told])),
        "final": pa.array(final.astype(np.bool_)),
        "counted_to": pa.array(counted_to),
        "version": pa.array(2 * counted_to + final),
    }
    cohorts = [cohort for told in rows.told for cohort in told.cohorts]
    for name, texts in zip(("tenant", "model", "region"), zip(*cohorts, strict=True), strict=True):
        columns[name] = pa.array(texts, pa.string()).dictionary_encode()
    for name, counts in rows.columns.counts.items():
        missing = None if counts.known is None else ~counts.known
        columns[name] = pa.array(counts.values, pa.uint64(), mask=missing)
    for name, amounts in rows.columns.money.items():
        columns[name] = decimals(words(amounts), amounts.known)
    return pa.table(columns)

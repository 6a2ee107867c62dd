"""Tables as bytes, in memory that is kept."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from sinks.clickhouse.arrow_body import ArrowBody

DRAWN = random.Random(1)


def table_of(rows: int) -> pa.Table:
    """Texts that can't be compressed, and numbers that can."""
    texts = [DRAWN.randbytes(DRAWN.randint(0, 90)) for _ in range(rows)]
    return pa.table({"text": pa.array(texts, pa.binary()), "n": pa.array(range(rows), pa.int64())})


@pytest.mark.parametrize("compression", [None, "lz4", "zstd", "gzip"])
def test_what_comes_out_is_the_table_whatever_came_before(compression: str | None) -> None:
    body = ArrowBody()
    for rows in (3, 20_000, 0, 1, 50_000, 7):
        table = table_of(rows)
        written = body.of(table, compression)
        assert pa.ipc.RecordBatchFileReader(pa.py_buffer(written)).read_all().equals(table)


def test_memory_is_kept() -> None:
    body = ArrowBody()
    large, again = body.of(table_of(50_000)), body.of(table_of(1_000))
    assert large.obj is again.obj


def test_many_columns_fit() -> None:
    table = pa.table({f"column {n}": pa.array([n] * 100, pa.int64()) for n in range(500)})
    written = ArrowBody().of(table, "lz4")
    assert pa.ipc.RecordBatchFileReader(pa.py_buffer(written)).read_all().equals(table)

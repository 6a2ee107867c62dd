"""Lines of several takes in one table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from metering.columns import Coded
from metering.lines import CostLines
from metering.prices import PriceBook, parse_price_book
from metering.pricing import price_batch
from metering.usage import UsageBatch
from sinks.clickhouse.arrow import DEFAULTS, table_of, table_of_all

BOOK = parse_price_book(
    '[[gpu_hour]]\nid = "p"\naccelerator = "cpu"\nregion = "*"\n'
    'usd_per_gpu_hour = "1.7"\neffective_from = 2020-01-01T00:00:00Z\n',
    "book",
)
MakeBatch = Callable[..., UsageBatch]


def lines_of(batch: UsageBatch, book: PriceBook = BOOK) -> CostLines:
    return CostLines.of(price_batch(batch, book))


def test_the_rows_are_those_of_each_whatever_columns_they_have(batch_of: MakeBatch) -> None:
    parts = [
        lines_of(batch_of(0, requests=[{"tenant": "acme"}, {"tenant": "größer"}])),
        lines_of(batch_of(1, accelerator="a secret chip")),
        lines_of(batch_of(2, gpu_ns=2**52, requests=[{"queue_ns": 7}])),
        lines_of(batch_of(3, requests=[{"tenant": "acme", "retry_of": "r-1"}])),
    ]
    together = table_of_all(parts)
    assert together.to_pylist() == [row for x in parts for row in table_of(x).to_pylist()]
    tenant = together["tenant"]
    assert len({chunk.dictionary.to_pylist().__str__() for chunk in tenant.chunks}) == 1


def test_a_short_table_leaves_out_what_is_said_by_default(batch_of: MakeBatch) -> None:
    for more in (
        [{}],
        [{"queue_ns": 0}],
        [{}, {"queue_ns": 7}],
        [{"input_tokens": 9, "cached_input_tokens": 9}, {}],
        [{"retry_of": "r"}, {}],
    ):
        lines = lines_of(batch_of(0, requests=more))
        short, whole = (table_of(lines, short=is_short).to_pylist() for is_short in (True, False))
        assert [DEFAULTS | row for row in short] == whole
        assert len(short[0]) < len(whole[0])


def test_one_part_is_its_own_table(batch_of: MakeBatch) -> None:
    lines = lines_of(batch_of(0))
    assert table_of_all([lines]).equals(table_of(lines, short=True))


def test_a_dictionary_of_many_values_keeps_its_codes(batch_of: MakeBatch) -> None:
    """One more than there are short codes for."""
    few = lines_of(batch_of(0, requests=[{"tenant": "a"}]))
    many = few.take(np.zeros(2**15, np.intp))
    names = [f"tenant {n}" for n in range(2**15)]
    columns = {**many.columns, "tenant": Coded(names, np.arange(2**15, dtype=np.int32))}
    table = table_of_all([CostLines(2**15, columns)])
    assert table["tenant"].to_pylist() == names

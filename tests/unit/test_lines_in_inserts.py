"""How many lines go into one insert."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from metering.lines import NO_LINES, CostLines
from metering.prices import PriceBook
from metering.pricing import price_batch
from sinks.clickhouse import writer
from sinks.clickhouse.connection import ClickHouseTarget
from sinks.clickhouse.writer import ClickHouseWriter


class Counted(ClickHouseWriter):
    def __init__(self) -> None:
        super().__init__(ClickHouseTarget("http://127.0.0.1:1"))
        self.inserts: list[int] = []

    def _send(self, table: str, rows: int, insert: Callable[[Any, str], object]) -> None:
        self.inserts.append(rows)


@pytest.mark.parametrize(
    ("counts", "inserts"),
    [
        ([], []),
        ([0], []),
        ([1], [1]),
        ([1, 2, 3], [6]),
        ([10, 10], [10, 10]),
        ([4, 0, 6, 3], [10, 3]),
        ([25, 1], [25, 1]),
        ([9, 9, 9], [18, 9]),
    ],
)
def test_parts_go_together_until_there_are_enough(
    counts: Sequence[int],
    inserts: Sequence[int],
    batch_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer, "ENOUGH", 10)
    line = CostLines.of(price_batch(batch_of(0), PriceBook([])))
    counted = Counted()
    counted.write_all_lines([line.take(np.zeros(n, np.intp)) if n else NO_LINES for n in counts])
    assert counted.inserts == inserts

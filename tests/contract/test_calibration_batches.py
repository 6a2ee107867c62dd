"""Which batches calibration sees, against every implementation of ClickHouse's interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from metering.calibration import MeasuredBatch
from metering.lines import CostLines
from metering.prices import PriceBook
from metering.pricing import price_batch
from metering.usage import UsageBatch
from sinks.clickhouse.calibration import measured_batches
from sinks.clickhouse.connection import ClickHouseTarget
from sinks.clickhouse.queries import ClickHouseReader
from sinks.clickhouse.schema import migrate
from sinks.clickhouse.writer import ClickHouseWriter

MakeBatch = Callable[..., UsageBatch]
NOON_MS = 1_780_000_000_000


@pytest.fixture
def store(target: ClickHouseTarget) -> Iterator[tuple[ClickHouseWriter, ClickHouseReader]]:
    migrate(target)
    writer, reader = ClickHouseWriter(target), ClickHouseReader(target)
    yield writer, reader
    reader.close()
    writer.close()


def test_only_whole_batches_without_errors_are_measured_in_the_accelerators_own_time(
    store: tuple[ClickHouseWriter, ClickHouseReader], batch_of: MakeBatch
) -> None:
    writer, reader = store
    two = [
        {"input_tokens": 90, "cached_input_tokens": 40, "output_tokens": 7},
        {"input_tokens": 61, "output_tokens": 30, "rows": 2},
    ]
    whole = batch_of(0, requests=two, gpu_ns=1000, speedup=10)
    failed = batch_of(1, requests=[{}, {"status": "error", "output_tokens": 0}])
    torn = batch_of(2, requests=two)
    other = batch_of(3, model="other", accelerator="H100", gpu_ns=500)
    early = batch_of(4, model="other", accelerator="H100", end_epoch_ns=(NOON_MS - 1) * 10**6)
    for batch in (whole, failed, other, early):
        writer.write_lines(CostLines.of(price_batch(batch, PriceBook([]))))
    writer.write_lines(CostLines.of(price_batch(torn, PriceBook([]))[:1]))

    tiny = [MeasuredBatch(10_000, 3, 111, 37, 50, 15)]
    late = [MeasuredBatch(500, 1, 100, 20, 100, 20)]
    assert measured_batches(reader, since_ms=NOON_MS) == {
        ("other", "H100"): late,
        ("tiny", "cpu"): tiny,
    }
    assert measured_batches(reader, models=("tiny",)) == {("tiny", "cpu"): tiny}
    assert len(measured_batches(reader, models=("other",))["other", "H100"]) == 2
    assert measured_batches(reader, models=("other",), most=1) == {("other", "H100"): late}
    assert measured_batches(reader, models=("none",)) == {}

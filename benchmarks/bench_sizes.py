"""What a request takes up: ``make bench-sizes``, or with ``QUICK=1``.

Bytes in the usage topic, in the cost topic and in ClickHouse; the same for a window's row; and the
CPU time that ClickHouse takes to store a line, and for an insert of few, merges included. Usage is
that of ``bench-stream``, in batches of 32 and takes of 500 of them. Kafka's bytes are those of its
client's own batches, packed as the publisher packs them; ClickHouse is the embedded engine behind
its HTTP interface.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import numpy as np
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from benchmarks.report import Figure, show, write
from benchmarks.stream.events import COHORTS, MODELS, TENANTS, messages, price_book
from metering.costs import WindowRow
from metering.frame import frame_of
from metering.lines import CostLines
from metering.priced import PRICED
from metering.prices import parse_price_book
from metering.pricing_columns import price
from metering.usage_struct import event_in
from metering.window_rows import WindowRows
from sinks.clickhouse.connection import ClickHouseTarget, connect
from sinks.clickhouse.schema import migrate
from sinks.clickhouse.writer import ClickHouseWriter
from streams.publisher import Record, lines_records, window_records
from streams.stack.places import REPO

RESULTS = REPO / "build" / "results" / "bench_sizes.json"
BATCH_SIZE = 32
TAKE_MESSAGES = 500
SMALL_LINES, SMALL_INSERTS = 256, 200
"""Of a partition in calm: a take each 0.1 s."""
_PARTS = (
    "SELECT count() FROM system.parts WHERE active AND database = 'sizes' "
    "AND table = 'cost_request_lines'"
)
KAFKA_BATCH_BYTES = 256 * 1024
"""Before compression, as the publisher has it."""


def bytes_in_kafka(records: Sequence[Record]) -> int:
    """Of record batches as large as the client makes them at most."""
    total = 0
    builder, count = _builder(), 0
    for record in records:
        added = builder.append(
            count, 1_780_000_000_000, record.key, record.value, list(record.headers)
        )
        if added is None:
            total += len(builder.build())
            builder, count = _builder(), 0
            builder.append(0, 1_780_000_000_000, record.key, record.value, list(record.headers))
        count += 1
    return total + (len(builder.build()) if count else 0)


def _builder() -> DefaultRecordBatchBuilder:
    return DefaultRecordBatchBuilder(
        2, DefaultRecordBatch.CODEC_ZSTD, 0, 1, 0, 0, KAFKA_BATCH_BYTES
    )


def takes_of(usage: Sequence[Record]) -> Iterator[CostLines]:
    book = parse_price_book(price_book(), "made")
    for first in range(0, len(usage), TAKE_MESSAGES):
        part = usage[first : first + TAKE_MESSAGES]
        yield price(frame_of([event_in(record.value or b"") for record in part]), book)


def window_rows(seed: int) -> list[WindowRow]:
    """One of each of the cohorts, with figures as long as real ones."""
    drawn = random.Random(seed)
    rows = []
    for number in range(COHORTS):
        values: dict[str, object] = {
            name: drawn.randrange(10**9)
            for name, field in WindowRow.model_fields.items()
            if field.annotation is int
        }
        values |= {
            name: Decimal(drawn.randrange(10**18)) / 10**18
            for name, field in WindowRow.model_fields.items()
            if field.annotation is Decimal
        }
        values |= {name: drawn.randrange(10**9) for name in PRICED}
        values |= {"window_seconds": 60, "window_start_ms": 1_780_000_020_000, "final": True}
        values |= {"tenant": TENANTS[number % len(TENANTS)]}
        values |= {"model": f"{MODELS[number % len(MODELS)]}-{number}"}
        if "region" in WindowRow.model_fields:
            values["region"] = "eu-west"
        rows.append(WindowRow.model_validate(values))
    return rows


@contextmanager
def clickhouse(folder: Path) -> Iterator[tuple[ClickHouseTarget, int]]:
    """The embedded engine in a process of its own; where it is, and its process id."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sinks.embedded", "--path", folder / "clickhouse", "--port", "0"],
        stdout=subprocess.PIPE,
        cwd=REPO,
        text=True,
    )
    try:
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        url = process.stdout.readline().removeprefix("listening on ").strip()
        yield ClickHouseTarget(url, database="sizes"), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def cpu_seconds(pid: int) -> float:
    fields = re.sub(r".*\) ", "", Path(f"/proc/{pid}/stat").read_text()).split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stored(takes: Sequence[CostLines], rows: Sequence[WindowRow]) -> dict[str, Figure]:
    """Bytes of the parts on disk when all is merged, and the CPU time of the engine."""
    lines = sum(take.count for take in takes)
    with tempfile.TemporaryDirectory(prefix="meter-sizes-") as name, clickhouse(Path(name)) as at:
        target, pid = at
        migrate(target)
        writer = ClickHouseWriter(target)
        before = cpu_seconds(pid)
        for take in takes:
            writer.write_lines(take)
        inserted = cpu_seconds(pid) - before
        with connect(target) as client:
            client.command("OPTIMIZE TABLE cost_request_lines FINAL")
            merged = cpu_seconds(pid) - before
            writer.write_windows(WindowRows.of(rows))
            client.command("OPTIMIZE TABLE cost_window_rows FINAL")
            told = client.query(
                "SELECT table, sum(bytes_on_disk) FROM system.parts "
                "WHERE active AND database = 'sizes' GROUP BY table"
            ).result_rows
            before, begun_s = cpu_seconds(pid), time.monotonic()
            most = 0
            for number in range(SMALL_INSERTS):
                first = number * SMALL_LINES % (takes[0].count - SMALL_LINES)
                writer.write_lines(takes[0].take(np.arange(first, first + SMALL_LINES)))
                if number % 20 == 19:
                    most = max(most, int(client.query(_PARTS).result_rows[0][0]))
            client.command("OPTIMIZE TABLE cost_request_lines FINAL")
            small, took_s = cpu_seconds(pid) - before, time.monotonic() - begun_s
        writer.close()
    on_disk = {str(table): int(size) for table, size in told}
    return {
        "stored_bytes_per_request": Figure(
            round(on_disk["cost_request_lines"] / lines, 1), "B/request"
        ),
        "stored_bytes_per_window_row": Figure(
            round(on_disk["cost_window_rows"] / len(rows), 1), "B/row"
        ),
        "insert_us_per_line": Figure(round(inserted / lines * 1e6, 2), "CPU us/line"),
        "insert_and_merge_us_per_line": Figure(round(merged / lines * 1e6, 2), "CPU us/line"),
        "small_insert_cpu_ms": Figure(
            round(small / SMALL_INSERTS * 1e3, 2),
            "CPU ms",
            spread=f"{SMALL_LINES} lines, {SMALL_INSERTS / took_s:.0f}/s, {most} parts at most",
        ),
    }


def main() -> None:
    requests = 64_000 if os.environ.get("QUICK") == "1" else 480_000
    seed = int(os.environ.get("SEED", "1"))
    usage = list(messages(requests, BATCH_SIZE, seed=seed, until_ns=time.time_ns()))
    takes = list(takes_of(usage))
    costs = [r for n, take in enumerate(takes) for r in lines_records(take, 0, (n, n))]
    rows = window_rows(seed)
    figures = {
        "usage_bytes_per_request": Figure(round(bytes_in_kafka(usage) / requests, 1), "B/request"),
        "cost_bytes_per_request": Figure(round(bytes_in_kafka(costs) / requests, 1), "B/request"),
        "window_bytes_per_row": Figure(
            round(bytes_in_kafka(list(window_records(WindowRows.of(rows)))) / len(rows), 1), "B/row"
        ),
        **stored(takes, rows),
    }
    show(f"{requests:,} requests in batches of {BATCH_SIZE}", figures)
    write(RESULTS, figures)


if __name__ == "__main__":
    main()

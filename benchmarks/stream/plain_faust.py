"""The same costs by Faust as its documentation has it: records, an agent, a windowed table.

It prices each request in floats and sums it into its cohort's minute. It knows no duplicates,
stores no lines, and publishes nothing but the table's changelog: less work than the worker does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import faust

from benchmarks.stream.given import COMMIT_S, TOPIC, WINDOW_S, Given

given = Given.from_env()
USD_PER_GPU_NS = given.usd_per_gpu_ns()


class Requests(faust.Record):
    """Column by column; ``payer`` is each request's place in ``payers``."""

    request_id: list[str]
    payers: list[list[Any]]
    payer: Any
    gpu_ns: Any


class Batch(faust.Record, serializer="json"):
    source: str
    sequence: int
    model: str
    accelerator: str
    region: str
    end_epoch_ns: int
    requests: Requests


app = faust.App(
    given.group,
    broker=f"kafka://{given.kafka}",
    broker_commit_interval=COMMIT_S,
    consumer_auto_offset_reset="earliest",
    topic_partitions=1,
    store="memory://",
    datadir=str(given.folder),
    web_enabled=False,
)
usage = app.topic(TOPIC, value_type=Batch)


def ended_s(event: Any) -> float:
    return float(event.value.end_epoch_ns / 1e9)


costs = (
    app.Table("costs", default=float, partitions=1)
    .tumbling(WINDOW_S, expires=10 * WINDOW_S)
    .relative_to(ended_s)  # type: ignore[attr-defined]  # faust types it as a window's wrapper
)


def each(requests: Requests) -> Iterator[tuple[str, int]]:
    """(tenant, GPU ns) of each request."""
    count = len(requests.request_id)
    columns = (requests.payer, requests.gpu_ns)
    payers, gpu_ns = (c if isinstance(c, list) else [c] * count for c in columns)
    for payer, own_ns in zip(payers, gpu_ns, strict=True):
        yield requests.payers[payer][0], own_ns


@app.agent(usage)
async def price(batches: Any) -> None:
    async for batch in batches:
        usd_per_gpu_ns = USD_PER_GPU_NS[batch.accelerator, batch.region]
        for tenant, gpu_ns in each(batch.requests):
            costs[f"{tenant}|{batch.model}|{batch.region}"] += gpu_ns * usd_per_gpu_ns


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "-l", "error"]
    app.main()

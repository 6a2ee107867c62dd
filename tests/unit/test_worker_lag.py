"""What a worker shows of its partitions: how far behind it is, busy or not; nothing of others'."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from prometheus_client import CollectorRegistry, generate_latest

from metering.cloudevents import USAGE_BATCH_TYPE, encode_headers
from metering.errors import SinkUnavailable
from metering.ledger import Ledger
from metering.lines import CostLines
from metering.messages import Message
from metering.prices import PriceBook
from metering.pricing import price_batch
from metering.usage import UsageBatch
from sinks.prometheus import MOST_MODELS, OTHER, WorkerMetrics
from streams.publisher import Record
from streams.settings import Settings
from streams.topics import USAGE_BATCHES
from streams.worker.app import Work
from streams.worker.book import PriceBookFile
from streams.worker.counts import count_lines
from streams.worker.desks import Desk
from streams.worker.pricing import Pricing

REPO = Path(__file__).parents[2]
PRICES = REPO / "deploy" / "prices.toml"
GAUGES = (
    "meter_lag_messages", "meter_counted_to_offset", "meter_watermark_delay_seconds",
    "meter_missing_batches",
)  # fmt: skip


class Kafka:
    """The consumer, and a broker that says where the topic ends."""

    def __init__(self) -> None:
        self.mine = {0, 1}
        self.ends = {0: 0, 1: 0}
        self.committed = {0: 0, 1: 0}

    def assignment(self) -> set[TP]:
        return {TP(USAGE_BATCHES, partition) for partition in self.mine}

    def committed_to(self, tp: TP) -> int | None:
        return self.committed.get(tp.partition)

    async def highwaters(self, *partitions: TP) -> dict[TP, int]:
        return {tp: self.ends[tp.partition] for tp in partitions}

    async def of(self, topic: str, partition: int) -> int:
        return self.ends[partition]


class Worker:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = WorkerMetrics(self.registry)
        self.kafka = Kafka()
        self.may_commit = asyncio.Event()
        self.may_make = asyncio.Event()
        self.may_commit.set()
        self.may_make.set()
        app: Any = SimpleNamespace(consumer=self.kafka)
        self.work = Work(app, Settings(price_book=PRICES), self.metrics)
        self.work._ends = self.kafka  # type: ignore[assignment]
        self.work._publisher = SimpleNamespace(publish=self.publish)  # type: ignore[assignment]
        self.work._pricing._make = self.make

    async def make(self, partition: int) -> Desk[Pricing]:
        await self.may_make.wait()
        pricing = Pricing(
            partition,
            partitions=2,
            ways=2,
            ledger=Ledger(),
            prices=PriceBookFile(PRICES),
            store=lambda _: None,
            room=self.stop,
            commit=self.commit,
            end_offset=self.work._end_offset,
            read_stretch=self.nothing,
            metrics=self.metrics,
        )
        transactions: Any = SimpleNamespace(stop=self.stop)
        return Desk(pricing, transactions)

    async def stop(self) -> None:
        return

    async def publish(self, _: object) -> None:
        return

    async def nothing(self, _: int, end: int) -> tuple[list[Message], int]:
        return [], end

    async def commit(self, records: Iterable[Record]) -> None:
        assert list(records)
        await self.may_commit.wait()

    async def handle(self, partition: int, *messages: Message) -> None:
        await self.work._pricing.use(partition, lambda desk: desk.work.handle(messages))

    async def second(self) -> None:
        """What the worker does once a second."""
        await self.work.tick()
        await self.work.measure()

    def shown(self, gauge: str, partition: int) -> float | None:
        return self.registry.get_sample_value(gauge, {"partition": str(partition)})


@pytest.fixture
def message(batch_of: Callable[..., UsageBatch]) -> Callable[[int], Message]:
    def made(offset: int) -> Message:
        batch = batch_of(offset)
        headers = encode_headers(USAGE_BATCH_TYPE, batch.source, str(offset), batch.end_epoch_ns)
        value = batch.model_dump_json().encode()
        return Message(offset, batch.end_epoch_ns, value, tuple(headers))

    return made


async def test_a_worker_that_is_busy_shows_how_far_it_is_behind(
    message: Callable[[int], Message],
) -> None:
    worker = Worker()
    worker.kafka.ends[0] = 1
    await worker.handle(0, message(0))
    await worker.second()
    assert worker.shown("meter_lag_messages", 0) == 0
    worker.may_commit.clear()
    busy = asyncio.create_task(worker.handle(0, message(1)))
    await asyncio.sleep(0.01)
    worker.kafka.ends[0] = 5_000
    await worker.second()
    assert worker.shown("meter_lag_messages", 0) == 4_999, "what is not committed is not done"
    assert worker.shown("meter_counted_to_offset", 0) == 0
    worker.may_commit.set()
    await busy
    await worker.second()
    assert worker.shown("meter_lag_messages", 0) == 4_998
    assert worker.shown("meter_lag_messages", 1) == 0


async def test_a_worker_that_still_reads_its_ledger_shows_what_is_not_acknowledged() -> None:
    worker = Worker()
    worker.may_make.clear()
    worker.kafka.ends[1], worker.kafka.committed[1] = 900, 400
    await worker.work.measure()
    assert worker.shown("meter_lag_messages", 1) == 500


async def test_gauges_of_a_partition_that_is_another_workers_are_gone(
    message: Callable[[int], Message],
) -> None:
    worker = Worker()
    for partition in (0, 1):
        await worker.handle(partition, message(0))
    await worker.second()
    for gauge in GAUGES:
        assert worker.shown(gauge, 0) is not None, gauge
        assert worker.shown(gauge, 1) is not None, gauge
    worker.kafka.mine = {1}
    await worker.second()
    for gauge in GAUGES:
        assert worker.shown(gauge, 0) is None, gauge
        assert worker.shown(gauge, 1) is not None, gauge


async def test_an_outage_ends_though_a_partition_that_saw_it_is_another_workers_by_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def away(_: object) -> None:
        raise SinkUnavailable("Kafka at k", 0, "away")

    caplog.set_level(logging.INFO)
    worker = Worker()
    worker.work._publisher.publish = away  # type: ignore[method-assign,assignment]
    await worker.second()
    worker.work._publisher.publish = worker.publish  # type: ignore[method-assign,assignment]
    worker.kafka.mine = {1}
    await worker.second()
    await worker.second()
    worker.work._publisher.publish = away  # type: ignore[method-assign,assignment]
    await worker.second()
    began = [r for r in caplog.records if "retrying until it succeeds" in r.getMessage()]
    assert len(began) == 2


def test_models_of_invalid_requests_share_a_series_too(
    batch_of: Callable[..., UsageBatch],
) -> None:
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    for n in range(MOST_MODELS + 50):
        batch = batch_of(model=f"model-{n}").model_copy(update={"invalid": "phases"})
        count_lines(metrics, CostLines.of(price_batch(batch, PriceBook([]))))
    shown = generate_latest(registry).count(b"meter_invalid_requests_total{")
    assert shown == MOST_MODELS + 1


def test_models_beyond_the_first_few_hundred_share_a_series(
    batch_of: Callable[..., UsageBatch],
) -> None:
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    names = [f"model-{n}" for n in range(MOST_MODELS + 50)]
    for name in [*names, *names]:
        count_lines(metrics, CostLines.of(price_batch(batch_of(model=name), PriceBook([]))))

    def counted(name: str) -> float | None:
        labels = {"model": name, "pricing_status": "unpriced"}
        return registry.get_sample_value("meter_requests_total", labels)

    assert counted(names[0]) == 2
    assert counted(names[-1]) is None
    assert counted(OTHER) == 100
    assert generate_latest(registry).count(b"meter_gpu_seconds_total{") == MOST_MODELS + 1

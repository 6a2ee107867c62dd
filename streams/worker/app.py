"""The Faust app: an agent that prices usage, and one that adds up windows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import faust
from aiokafka.errors import KafkaError
from faust.types import TP
from prometheus_client import CollectorRegistry

from metering.errors import SinkUnavailable
from sinks.prometheus import WorkerMetrics
from streams.publisher import Publisher
from streams.settings import METADATA_MAX_AGE_MS, Settings
from streams.topics import ADDITIONS, USAGE_BATCHES
from streams.worker.batch_consumer import BatchApp
from streams.worker.death import or_die
from streams.worker.desks import Desk, Desks
from streams.worker.epochs import CHECK_S
from streams.worker.garbage import EVERY_S, collect
from streams.worker.intake import Take, takes
from streams.worker.lanes import Lanes
from streams.worker.owned import Closing, Owned
from streams.worker.pricing import Pricing
from streams.worker.totalling import Totalling
from streams.worker.where import tell_where

log = logging.getLogger(__name__)

APP_ID = "inference-meter"
TAKE_MESSAGES = 500
TAKE_WITHIN_S = 0.02
WAITING_MESSAGES = 4 * TAKE_MESSAGES
TICK_S = 1.0
TELL_S = 0.5
T = TypeVar("T", bound=Closing)


def credentials(settings: Settings) -> Any:
    """TLS and SASL as Faust wants them; ``None`` on a plain loopback."""
    client = settings.kafka_client()
    context = client.get("ssl_context")
    if settings.kafka_security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            mechanism=settings.kafka_sasl_mechanism,
            username=settings.kafka_username,
            password=settings.kafka_password.get_secret_value(),
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)


def bare_app(settings: Settings) -> BatchApp:
    """Without agents and timers: how the worker stands to Kafka."""
    return BatchApp(
        APP_ID,
        broker=f"kafka://{settings.kafka.replace(',', ';kafka://')}",
        broker_credentials=credentials(settings),
        # A worker that was killed is missed after this long, and its partitions move.
        broker_session_timeout=6.0,
        broker_heartbeat_interval=2.0,
        broker_commit_interval=1.0,
        # Kafka or ClickHouse may be away for long: the worker waits, it is not thrown out.
        broker_max_poll_interval=86_400.0,
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=METADATA_MAX_AGE_MS,
        topic_replication_factor=1,
        topic_disable_leader=True,
        key_serializer="raw",
        value_serializer="raw",
        store="memory://",
        datadir=str(settings.state_dir / "faust"),
        web_enabled=False,
        stream_wait_empty=False,
    )


def make_app(settings: Settings, registry: CollectorRegistry) -> faust.App:
    """Everything wired; nothing is connected before the app starts."""
    app = bare_app(settings)
    work = Work(app, settings, WorkerMetrics(registry))
    app.agent(app.topic(USAGE_BATCHES, key_type=bytes, value_type=bytes))(work.price)
    app.agent(app.topic(ADDITIONS, key_type=bytes, value_type=bytes))(work.total)
    app.task(work.tell_where_on_signal)
    app.timer(interval=TICK_S)(work.tick)
    app.timer(interval=TELL_S)(work.tell)
    app.timer(interval=CHECK_S)(work.check_topics)
    app.before_start.append(work.note_topics)
    app.timer(interval=EVERY_S)(work.collect)
    app.on_before_shutdown.connect(work.stop)
    return app


class Work:
    """What the agents and the timers do, for the partitions that this worker has just now."""

    def __init__(self, app: BatchApp, settings: Settings, metrics: WorkerMetrics) -> None:
        self._app = app
        self._publisher = Publisher(settings)
        self._desks = desks = Desks(
            settings, APP_ID, metrics, self._is_mine, self._end_offset, rewind=self._rewind
        )
        self._pricing = Owned(desks.pricing, partial(self._is_mine, USAGE_BATCHES))
        self._totalling = Owned(desks.totalling, partial(self._is_mine, ADDITIONS))
        self._acks: set[asyncio.Task[None]] = set()
        self._to_price = Lanes(self._price, WAITING_MESSAGES)
        self._to_total = Lanes(self._total, WAITING_MESSAGES)
        self._has_passed_over = False
        self._collections = 0

    def _is_mine(self, topic: str, partition: int) -> bool:
        return TP(topic, partition) in self._app.consumer.assignment()

    async def _end_offset(self, partition: int) -> int | None:
        tp = TP(USAGE_BATCHES, partition)
        try:
            return int((await self._app.consumer.highwaters(tp))[tp])
        except KafkaError as exc:
            log.warning("Kafka does not say where the topic ends, so no window closes: %r", exc)
            return None

    async def _rewind(self, topic: str, partition: int) -> None:
        await self._app.consumer.rewind(TP(topic, partition))

    async def note_topics(self) -> None:
        await self._desks.topics.check()

    async def check_topics(self) -> None:
        await self._desks.topics.check_or_end()

    async def price(self, stream: Any) -> AsyncIterator[None]:
        async for taken in takes(stream, TAKE_MESSAGES, TAKE_WITHIN_S):
            for take in taken:
                await self._to_price.put(take)
            yield None

    async def _price(self, partition: int, taken: list[Take]) -> None:
        messages = [message for take in taken for message in take.messages]
        with or_die():
            await self._desks.lines.room()
            if await self._pricing.use(partition, lambda desk: desk.work.handle(messages)):
                task = asyncio.create_task(self._ack(partition, taken))
                self._acks.add(task)
                task.add_done_callback(self._acks.discard)

    async def _ack(self, partition: int, taken: list[Take]) -> None:
        await self._desks.lines.stored(partition)
        for take in taken:
            take.ack()

    async def total(self, stream: Any) -> AsyncIterator[None]:
        async for taken in takes(stream, TAKE_MESSAGES, 0.0):
            for take in taken:
                await self._to_total.put(take)
            yield None

    async def _total(self, partition: int, taken: list[Take]) -> None:
        async def add(desk: Desk[Totalling]) -> None:
            for take in taken:
                await desk.work.handle(take.messages, take.ack)

        with or_die():
            await self._totalling.use(partition, add)

    async def tick(self) -> None:
        await self._on_timer(USAGE_BATCHES, self._pricing, self._tick)

    async def _tick(self, desk: Desk[Pricing]) -> None:
        marks = await desk.work.tick()
        try:
            await self._publisher.publish(marks)
        except SinkUnavailable as exc:
            log.warning("windows stay open for now: %s", exc)

    async def tell(self) -> None:
        """Every second time where usage waits: nobody sees it fresh then, and rows cost much."""
        is_behind, self._to_price.was_full = self._to_price.was_full, False
        self._has_passed_over = is_behind and not self._has_passed_over
        if self._has_passed_over:
            return
        await self._on_timer(ADDITIONS, self._totalling, lambda desk: desk.work.tell())

    async def _on_timer(
        self, topic: str, owned: Owned[T], do: Callable[[T], Awaitable[None]]
    ) -> None:
        with or_die():
            await owned.let_go()
            mine = [tp.partition for tp in self._app.consumer.assignment() if tp.topic == topic]
            await asyncio.gather(*(owned.use(p, do) for p in mine if not owned.is_busy(p)))

    async def collect(self) -> None:
        self._collections += 1
        collect(self._collections)

    async def tell_where_on_signal(self) -> None:
        tell_where(asyncio.get_running_loop())

    async def stop(self, *_args: Any, **_: Any) -> None:
        await self._publisher.stop()
        await self._pricing.close()
        await self._totalling.close()
        self._desks.close()

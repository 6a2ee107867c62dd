"""The Faust app: an agent that prices usage, and one that adds up windows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import faust
from faust.types import TP
from prometheus_client import CollectorRegistry

from metering.errors import SinkUnavailable
from sinks.outages import OUTAGES
from sinks.prometheus import WorkerMetrics
from streams.publisher import Publisher
from streams.settings import METADATA_MAX_AGE_MS, Settings
from streams.topics import ADDITIONS, USAGE_BATCHES
from streams.worker.batch_consumer import BatchApp
from streams.worker.death import or_die
from streams.worker.desks import Desk, Desks
from streams.worker.end_offsets import EndOffsets
from streams.worker.epochs import CHECK_S
from streams.worker.garbage import EVERY_S, collect
from streams.worker.intake import Take, takes
from streams.worker.lanes import Lanes
from streams.worker.owned import Closing, Owned
from streams.worker.pricing import Pricing
from streams.worker.totalling import Totalling
from streams.worker.where import tell_where

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
    app.before_start.append(work.note_topics)
    for interval_s, do in (
        (TICK_S, work.tick),
        (TICK_S, work.measure),
        (TELL_S, work.tell),
        (CHECK_S, work.check_topics),
        (EVERY_S, work.collect),
    ):
        app.task(partial(_every, app, interval_s, do))
    app.on_before_shutdown.connect(work.stop)
    return app


async def _every(app: faust.App, interval_s: float, do: Callable[[], Awaitable[None]]) -> None:
    """Until the app stops, with so long a pause behind each. In place of ``app.timer``, which warns
    each time that it takes longer: it does where Kafka or ClickHouse is away."""
    while not app.should_stop:
        await app.sleep(interval_s)
        with or_die():
            await do()


class Work:
    """What the agents and the timers do, for the partitions that this worker has just now."""

    def __init__(self, app: BatchApp, settings: Settings, metrics: WorkerMetrics) -> None:
        self._app = app
        self._metrics = metrics
        self._publisher = Publisher(settings)
        self._ends = EndOffsets(settings)
        self._last_ends: dict[int, int] = {}
        self._desks = desks = Desks(
            settings, APP_ID, metrics, self._is_mine, self._end_offset, rewind=self._rewind
        )
        self._pricing = Owned(desks.pricing, partial(self._is_mine, USAGE_BATCHES))
        self._totalling = Owned(desks.totalling, partial(self._is_mine, ADDITIONS))
        self._acks: set[asyncio.Task[None]] = set()
        self._to_price = Lanes(self._price, WAITING_MESSAGES)
        self._to_total = Lanes(self._total, WAITING_MESSAGES)
        self._without_mark: set[int] = set()
        self._has_passed_over = False
        self._has_ended = False
        self._collections = 0

    def _is_mine(self, topic: str, partition: int) -> bool:
        return TP(topic, partition) in self._app.consumer.assignment()

    async def _end_offset(self, partition: int) -> int | None:
        """Without it no window closes by the clock."""
        try:
            return await self._ends.of(USAGE_BATCHES, partition)
        except SinkUnavailable:
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
        with or_die():
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
        for partition in self._without_mark - self._mine(USAGE_BATCHES):
            self._without_mark.discard(partition)
            OUTAGES.gave_up((self, partition))

    async def _tick(self, desk: Desk[Pricing]) -> None:
        marks, partition = await desk.work.tick(), desk.work.partition
        try:
            await self._publisher.publish(marks)
        except SinkUnavailable as exc:  # the windows stay open for now
            if not self._has_ended:
                self._without_mark.add(partition)
                OUTAGES.failed((self, partition), exc)
        else:
            self._without_mark.discard(partition)
            OUTAGES.recovered((self, partition))

    async def tell(self) -> None:
        """Every second time where usage waits: nobody sees it fresh then, and rows cost much."""
        self._desks.let_go()
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
            mine = self._mine(topic)
            await asyncio.gather(*(owned.use(p, do) for p in mine if not owned.is_busy(p)))

    def _mine(self, topic: str) -> set[int]:
        return {tp.partition for tp in self._app.consumer.assignment() if tp.topic == topic}

    async def measure(self) -> None:
        """The gauges of the partitions that this worker has. Not by the tick, which passes over
        a partition that is busy, or waits for one that has been lost. While Kafka is away the last
        known end of a topic stands, and the lag with it."""
        mine = self._mine(USAGE_BATCHES)
        asked = [self._ends.of(USAGE_BATCHES, partition) for partition in mine]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for partition, end in zip(mine, answers, strict=True):
            if isinstance(end, int):
                self._last_ends[partition] = end
            elif not isinstance(end, SinkUnavailable):
                raise end
        still_mine = self._mine(USAGE_BATCHES)
        for partition in still_mine:
            self._measure(partition, time.time_ns())
        self._metrics.keep_partitions(still_mine)

    def _measure(self, partition: int, now_ns: int) -> None:
        desk = self._pricing.held(partition)
        end = self._last_ends.get(partition)
        if desk is not None:
            desk.work.measure(now_ns, end)
            return
        committed = self._app.consumer.committed_to(TP(USAGE_BATCHES, partition))
        if end is not None and committed is not None:  # its ledger is still being read
            self._metrics.lag.labels(str(partition)).set(max(0, end - committed))

    async def collect(self) -> None:
        self._collections += 1
        collect(self._collections)

    async def tell_where_on_signal(self) -> None:
        tell_where(asyncio.get_running_loop())

    async def stop(self, *_args: Any, **_: Any) -> None:
        self._has_ended = True
        await self._publisher.stop()
        await self._ends.stop()
        await self._pricing.close()
        await self._totalling.close()
        self._desks.close()

"""The Faust app: one agent over the usage topic, one table that holds a ledger per partition."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from typing import Any

import faust
from aiokafka.errors import KafkaError
from faust.types import TP
from prometheus_client import CollectorRegistry

from metering.ledger import Ledger, from_bytes
from metering.messages import Message
from sinks.clickhouse.writer import ClickHouseWriter
from sinks.prometheus import WorkerMetrics
from streams.publisher import Publisher
from streams.settings import Settings
from streams.targets import clickhouse_target
from streams.topics import USAGE_BATCHES
from streams.worker.book import PriceBookFile
from streams.worker.intake import takes
from streams.worker.processor import Processor
from streams.worker.reread import read_stretch

log = logging.getLogger(__name__)

APP_ID = "inference-meter"
TAKE_MESSAGES = 500
TAKE_WITHIN_S = 0.1
TICK_S = 1.0
SEGMENT_BYTES = 16 * 1024 * 1024
LEDGER_BYTES = 15 * 1024 * 1024
"""The largest ledger that can be saved: some 70,000 cohorts at 200 bytes each, compressed."""
EX_SOFTWARE = 70


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


def make_app(settings: Settings, registry: CollectorRegistry) -> faust.App:
    """Everything wired; nothing is connected before the app starts."""
    app = faust.App(
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
        topic_partitions=1,
        topic_replication_factor=1,
        topic_disable_leader=True,
        producer_max_request_size=LEDGER_BYTES,
        key_serializer="raw",
        value_serializer="raw",
        store="memory://",
        datadir=str(settings.state_dir / "faust"),
        web_enabled=False,
        stream_wait_empty=False,
    )
    metrics = WorkerMetrics(registry)
    prices = PriceBookFile(settings.price_book)
    writer = ClickHouseWriter(clickhouse_target(settings))
    publisher = Publisher(settings)
    processors: dict[int, Processor] = {}

    ledgers = app.Table(
        "ledgers",
        key_type=bytes,
        value_type=bytes,
        partitions=1,
        extra_topic_configs={
            "segment.bytes": SEGMENT_BYTES,
            "max.message.bytes": LEDGER_BYTES,
            "min.cleanable.dirty.ratio": 0.1,
        },
    )

    async def save(partition: int, snapshot: bytes) -> None:
        key = str(partition).encode()
        ledgers.data[key] = snapshot
        acknowledged = ledgers.send_changelog(partition, key, snapshot)
        await acknowledged

    async def end_offset(partition: int) -> int | None:
        tp = TP(USAGE_BATCHES, partition)
        try:
            return int((await app.consumer.highwaters(tp))[tp])
        except KafkaError as exc:
            log.warning("Kafka does not say where the topic ends, so no window closes: %r", exc)
            return None

    def processor_of(partition: int) -> Processor:
        if partition not in processors:
            snapshot = ledgers.data.get(str(partition).encode())
            ledger = Ledger() if snapshot is None else from_bytes(snapshot)
            log.info("partition %d: counted to %d", partition, ledger.windows.counted_to)
            processors[partition] = Processor(
                partition,
                ledger=ledger,
                prices=prices,
                writer=writer,
                publisher=publisher,
                save=save,
                end_offset=end_offset,
                read_stretch=partial(read_stretch, settings),
                metrics=metrics,
            )
        return processors[partition]

    @app.agent(app.topic(USAGE_BATCHES, key_type=bytes, value_type=bytes))
    async def price(stream: Any) -> AsyncIterator[None]:
        async for events in takes(stream, TAKE_MESSAGES, TAKE_WITHIN_S):
            by_partition: dict[int, list[Any]] = {}
            for event in events:
                by_partition.setdefault(event.message.partition, []).append(event)
            with or_die():
                for partition, own in by_partition.items():
                    await processor_of(partition).handle(_messages(own))
            for event in events:
                event.ack()
            yield None

    async def tick() -> None:
        with or_die():
            for processor in list(processors.values()):
                await processor.tick()

    app.timer(interval=TICK_S)(tick)

    @ledgers.on_recover
    async def recovered() -> None:
        for tp in app.consumer.assignment():
            if tp.topic == USAGE_BATCHES:
                processor_of(tp.partition)

    async def revoked(*args: Any, **_: Any) -> None:
        for tp in args[1]:
            if tp.topic == USAGE_BATCHES:
                processors.pop(tp.partition, None)

    app.on_partitions_revoked.connect(revoked)

    async def stopping(*_args: Any, **_: Any) -> None:
        await publisher.stop()
        writer.close()

    app.on_before_shutdown.connect(stopping)

    return app


@contextlib.contextmanager
def or_die() -> Iterator[None]:
    """An error that nobody foresaw ends the process at once, without a word to Kafka.

    Faust would restart the agent and go on behind the messages that failed, with a ledger that has
    half seen them. A new process begins where the saved ledger ends.
    """
    try:
        yield
    except Exception:
        log.critical("this is a bug; the worker ends and begins again", exc_info=True)
        logging.shutdown()
        os._exit(EX_SOFTWARE)


def _messages(events: Sequence[Any]) -> list[Message]:
    return [
        Message(
            offset=event.message.offset,
            appended_ns=_stamp_ns(event.message.timestamp),
            value=event.message.value or b"",
            headers=tuple(_pairs(event.message.headers)),
        )
        for event in events
    ]


def _stamp_ns(stamp_s: float | None) -> int:
    """Faust gives the broker's stamp in seconds; a broker before 0.10 gives none."""
    return time.time_ns() if stamp_s is None else int(stamp_s * 1000) * 10**6


def _pairs(headers: Any) -> Sequence[tuple[str, bytes]]:
    if headers is None:
        return ()
    items = headers.items() if hasattr(headers, "items") else headers
    return [(str(name), bytes(value or b"")) for name, value in items]  # Kafka has null headers

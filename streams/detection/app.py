"""Reads ``cost.windows.v1``, judges each window once, publishes what is not normal.

The models' state is what they have seen, so a start reads the retained windows again, silently up
to the committed offset and aloud from there. Anomalies are stored and published before the offset
is committed: a crash in between repeats them under the same ``anomaly_id``. So does an end while
rows of several windows come mixed, as the offset stays before the first that waits. Who is alerted
reads the topic of anomalies (``streams/detection/alerts.py``).

A row that can't be read or judged is counted and passed over: it stays in its topic, and no row
stops the detector.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from detectors.spend import SpendDetector
from metering.costs import Anomaly, WindowRow
from metering.errors import MeteringError, SinkUnavailable, UnreadableUsage
from metering.figures import money
from metering.messages import Message
from metering.window_messages import window_row_of
from sinks.clickhouse.writer import ClickHouseWriter
from sinks.outages import OUTAGES
from sinks.prometheus import DetectorMetrics
from streams.detection.intervals import Interval, Intervals
from streams.group_place import GroupPlace
from streams.publisher import Publisher, anomaly_record
from streams.record_message import message_of
from streams.settings import Settings
from streams.topics import COST_WINDOWS

log = logging.getLogger(__name__)

GROUP_ID = "inference-meter-detector"
JUDGED_WINDOW_SECONDS = 10
JUDGED_KEYS = f"{JUDGED_WINDOW_SECONDS}/".encode()
WARM_UP_ROWS = 400_000
"""Most are passed over unread: of other lengths, or of windows that are open."""
POLL_MS = 250
RETRY_FIRST_S = 0.2
RETRY_MOST_S = 5.0


@dataclass(frozen=True, slots=True)
class Outlets:
    writer: ClickHouseWriter
    publisher: Publisher
    metrics: DetectorMetrics


class Detection:
    def __init__(self, settings: Settings, detector: SpendDetector, outlets: Outlets) -> None:
        self._detector = detector
        self._outlets = outlets
        self._intervals = Intervals(JUDGED_WINDOW_SECONDS)
        self._partition = TopicPartition(COST_WINDOWS, 0)
        self._place = GroupPlace(settings, GROUP_ID, self._partition)
        self._announced_to = -1
        self._settings = settings
        self._consumer: Any = None

    async def run(self) -> None:
        """Until cancelled. Waits for as long as Kafka is away.

        Raises:
            TopicReplaced: the topic was deleted and created again.
        """
        try:
            await _until_taken(self._connect)
            log.info("windows up to offset %d were announced before", self._announced_to)
            while True:
                await self._place.check()
                batches = await self._consumer.getmany(self._partition, timeout_ms=POLL_MS)
                records = batches.get(self._partition, [])
                now_ns = time.time_ns()
                for record in records:
                    message = message_of(record, now_ns)
                    await self._judge(self._intervals.advance(_stamp_ms(record, message)))
                    row = self._row_of(message) if _may_be_judged(record.key, message) else None
                    if row is not None:
                        self._intervals.add(row, record.offset, time.monotonic())
                if not records:
                    await self._judge(self._intervals.settle(time.monotonic()))
        finally:
            await self._disconnect()

    async def _connect(self) -> None:
        """A consumer at the place where the models' memory begins.

        Raises:
            SinkUnavailable: Kafka does not answer.
        """
        await self._disconnect()
        self._consumer = consumer = AIOKafkaConsumer(
            **self._settings.kafka_client(),
            group_id=GROUP_ID,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        try:
            await consumer.start()
            consumer.assign([self._partition])
            end = (await consumer.end_offsets([self._partition]))[self._partition]
            committed = await self._place.find(end)
            beginning = (await consumer.beginning_offsets([self._partition]))[self._partition]
        except KafkaError as exc:
            raise SinkUnavailable(f"Kafka at {self._settings.kafka}", 0, repr(exc)) from exc
        self._announced_to = (0 if committed is None else committed) - 1
        consumer.seek(self._partition, max(beginning, self._announced_to + 1 - WARM_UP_ROWS))

    async def _disconnect(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()

    async def _judge(self, intervals: Sequence[Interval]) -> None:
        for interval in intervals:
            anomalies = self._observe(interval)
            self._outlets.metrics.windows.inc()
            if anomalies and interval.last_offset > self._announced_to:
                await _until_taken(partial(self._store, anomalies))
                for anomaly in anomalies:
                    self._report(anomaly)
            if interval.done_to > self._announced_to:
                await self._commit(interval.done_to + 1)
                self._announced_to = interval.done_to

    def _observe(self, interval: Interval) -> Sequence[Anomaly]:
        """Nothing where a window can't be judged: it must not stop those behind it."""
        try:
            return self._detector.observe(interval.rows)
        except (ArithmeticError, ValueError, MeteringError):
            self._outlets.metrics.failed.inc()
            log.exception("window %d was not judged", interval.rows[0].window_start_ms)
            return ()

    def _row_of(self, message: Message) -> WindowRow | None:
        try:
            return window_row_of(message)
        except UnreadableUsage as exc:
            if message.offset > self._announced_to:  # else it was counted before
                self._outlets.metrics.refused.labels(exc.reason).inc()
            log.error("window row at offset %d is passed over: %s", message.offset, exc)
            return None

    async def _store(self, anomalies: Sequence[Anomaly]) -> None:
        await asyncio.to_thread(self._outlets.writer.write_anomalies, anomalies)
        await self._outlets.publisher.publish([anomaly_record(a) for a in anomalies])

    def _report(self, anomaly: Anomaly) -> None:
        driver = anomaly.causes[0].driver if anomaly.causes else "unknown"
        self._outlets.metrics.anomalies.labels(driver).inc()
        log.warning(
            "anomaly %s: %s on %s%s: %s/h, %s",
            anomaly.anomaly_id,
            anomaly.tenant,
            anomaly.model,
            f" in {anomaly.region}" if anomaly.region else "",
            money(anomaly.usd_per_hour, signed=True),
            anomaly.causes[0].lever if anomaly.causes else "no cause found",
        )

    async def _commit(self, offset: int) -> None:
        try:
            await self._consumer.commit(self._place.at(offset))
        except KafkaError as exc:
            OUTAGES.away("Kafka", self, f"Kafka: offset {offset} not committed: {exc!r}")
        else:
            OUTAGES.recovered(self, "Kafka")


async def _until_taken(write: Callable[[], Awaitable[None]]) -> None:
    delay_s = RETRY_FIRST_S
    while True:
        try:
            await write()
        except SinkUnavailable as exc:
            OUTAGES.failed(_until_taken, exc)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_MOST_S)
        else:
            OUTAGES.recovered(_until_taken)
            return


def _may_be_judged(key: bytes | None, message: Message) -> bool:
    """By key and identity alone: most rows are of other lengths, or provisional."""
    if key is not None and not key.startswith(JUDGED_KEYS):
        return False
    return not any(name == "ce_id" and value.endswith(b"~") for name, value in message.headers)


def _stamp_ms(record: Any, message: Message) -> int:
    """As it is told again when the topic is read again; but a sender's stamp may be any."""
    return min(max(record.timestamp or 0, 0), message.appended_ns // 10**6)

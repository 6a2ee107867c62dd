"""Delivers ``cost.anomalies.v1`` to one webhook or Alertmanager, at least once.

Each target has a consumer group and a task of its own, so that none waits for another, nor the
detector for any. An alert is tried until it is delivered, or refused for good; then its offset is
committed. A crash in between delivers it again, under the same identity. What is not delivered
waits in the topic, through restarts, for as long as the topic keeps it. A topic that was deleted
and created again is read from its beginning.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from metering.cloudevents import COST_ANOMALY_TYPE
from metering.costs import Anomaly
from metering.errors import SinkRefused, SinkUnavailable, UnreadableUsage
from metering.reading import read_event
from sinks.outages import OUTAGES
from sinks.prometheus import DetectorMetrics
from streams.detection.pending_alerts import Alert, PendingAlerts, Place
from streams.group_place import GroupPlace
from streams.record_message import message_of
from streams.settings import Settings
from streams.topic_ids import TopicReplaced
from streams.topics import COST_ANOMALIES

log = logging.getLogger(__name__)

GROUP_PREFIX = "inference-meter-alerts"
POLL_MS = 250
RETRY_FIRST_S = 0.2
RETRY_MOST_S = 5.0


class AlertSink(Protocol):
    """One attempt: raises SinkUnavailable where it is to be tried again, SinkRefused where not."""

    async def deliver(self, anomaly: Anomaly, late_s: float = 0.0) -> None: ...


@dataclass(frozen=True, slots=True)
class Target:
    """``name`` stands in logs and metrics; the address, which may hold secrets, does not."""

    name: str
    group: str
    sink: AlertSink


def group_of(address: str) -> str:
    """Of the whole address, its secrets included, as a digest: a target that gets another address
    is another target."""
    return f"{GROUP_PREFIX}-{hashlib.sha256(address.encode()).hexdigest()[:16]}"


class Delivery:
    """Of one target."""

    def __init__(
        self,
        settings: Settings,
        target: Target,
        metrics: DetectorMetrics,
        part: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._target = target
        self._metrics = metrics
        self._part = part
        self._pending = PendingAlerts(part)
        self._consumer: Any = None
        self._places: dict[int, GroupPlace] = {}
        self._failing: set[Place] = set()
        self._delay_s = RETRY_FIRST_S
        self.positioned = asyncio.Event()
        """Set once the place is committed from which on every anomaly is delivered."""

    async def run(self) -> None:
        """Until cancelled. Waits for as long as Kafka or the target is away."""
        try:
            while True:
                try:
                    await self._connect()
                    self.positioned.set()
                    self._delay_s = RETRY_FIRST_S
                    OUTAGES.recovered(self)
                    await self._deliver_all()
                except TopicReplaced as exc:
                    log.error(
                        "%s; %d alerts to %s that were read are given up, and the new topic is "
                        "read from its beginning",
                        exc, len(self._pending), self._target.name,
                    )  # fmt: skip
                except KafkaError as exc:
                    problem = f"Kafka: alerts to {self._target.name} wait: {exc!r}"
                    OUTAGES.away("Kafka", self, problem)
                await self._disconnect()
                await asyncio.sleep(self._delay_s)
                self._delay_s = min(self._delay_s * 2, RETRY_MOST_S)
        finally:
            await self._disconnect()

    async def _connect(self) -> None:
        """A consumer where the group ended. A new target is told of what is published from now on,
        and that place is committed at once."""
        for place in list(self._failing):
            self._succeeded(place, gave_up=True)
        self._pending = PendingAlerts(self._part)
        self._consumer = consumer = AIOKafkaConsumer(
            **self._settings.kafka_client(),
            group_id=self._target.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        await consumer.start()
        consumer.assign([TopicPartition(COST_ANOMALIES, 0)])
        await consumer.end_offsets([TopicPartition(COST_ANOMALIES, 0)])
        numbers = self._found_partitions() or {0}
        partitions = [TopicPartition(COST_ANOMALIES, p) for p in sorted(numbers)]
        consumer.assign(partitions)
        beginnings = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        group = self._target.group
        self._places = {p.partition: GroupPlace(self._settings, group, p) for p in partitions}
        committed = {p: await self._places[p.partition].find(ends[p]) for p in partitions}
        is_known = self.positioned.is_set() or any(p.is_replaced for p in self._places.values())
        is_new = not is_known and all(offset is None for offset in committed.values())
        for partition, offset in committed.items():
            begin = beginnings[partition]
            if offset is None:
                place = ends[partition] if is_new else begin
                await consumer.commit(self._places[partition.partition].at(place))
            else:
                place = max(offset, begin)
                self._report_expired(place - offset)
            consumer.seek(partition, place)

    def _report_expired(self, count: int) -> None:
        if count:
            self._metrics.refusals.labels(self._target.name).inc(count)
            log.error("%d alerts to %s expired in their topic", count, self._target.name)

    def _found_partitions(self) -> set[int]:
        return set(self._consumer.partitions_for_topic(COST_ANOMALIES) or ())

    async def _disconnect(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(KafkaError):
                await consumer.stop()

    async def _deliver_all(self) -> None:
        """Until partitions are added. Raises TopicReplaced."""
        while self._found_partitions() <= self._places.keys():
            await next(iter(self._places.values())).check()
            alert = self._pending.next()
            wait_s = POLL_MS / 1000
            if alert is not None:
                wait_s = min(wait_s, max(0.0, alert.due_s - time.monotonic()))
            if self._pending.is_full:
                await asyncio.sleep(wait_s)
            else:
                await self._read(round(wait_s * 1000))
            alert = self._pending.next()
            if alert is not None and alert.due_s <= time.monotonic():
                await self._try(alert)
            await self._commit()
            await self._tell_pending()

    async def _read(self, timeout_ms: int) -> None:
        batches = await self._consumer.getmany(timeout_ms=timeout_ms, max_records=1)
        now_ns = time.time_ns()
        for partition, records in batches.items():
            for record in records:
                message = message_of(record, now_ns)
                place = (partition.partition, record.offset)
                published_ms = min(max(record.timestamp or 0, 0), now_ns // 10**6)
                try:
                    anomaly = read_event(message, COST_ANOMALY_TYPE, Anomaly)
                except UnreadableUsage as exc:
                    self._give_up(f"offset {record.offset}", exc)
                    self._pending.pass_over(place)
                else:
                    alert = Alert(place, anomaly, published_ms, time.monotonic())
                    self._pending.add(alert)

    async def _try(self, alert: Alert) -> None:
        name = self._target.name
        late_s = max(0.0, time.time() - alert.published_ms / 1000)
        try:
            await self._target.sink.deliver(alert.anomaly, late_s)
        except SinkRefused as exc:
            self._metrics.deliveries.labels("refused").inc()
            self._metrics.refusals.labels(name).inc()
            log.error("alert %s is refused for good: %s", alert.anomaly.anomaly_id, exc)
            self._pending.done(alert)
            self._succeeded(alert.place)
        except SinkUnavailable as exc:
            self._metrics.deliveries.labels("failed").inc()
            self._pending.failed(alert, time.monotonic(), exc.retry_after_s)
            self._failing.add(alert.place)
            OUTAGES.away(name, (self, alert.place), f"alerts to {name} wait: {exc}")
        except (ArithmeticError, ValueError) as exc:  # what it holds can't be put into an alert
            self._give_up(alert.anomaly.anomaly_id, exc)
            self._pending.done(alert)
            self._succeeded(alert.place, gave_up=True)
        except Exception:  # a fault of ours neither loses it nor stops the others
            self._metrics.deliveries.labels("failed").inc()
            self._pending.failed(alert, time.monotonic(), None)
            log.exception("alert %s to %s", alert.anomaly.anomaly_id, name)
        else:
            self._metrics.deliveries.labels("delivered").inc()
            self._pending.done(alert)
            self._succeeded(alert.place)

    def _succeeded(self, place: Place, *, gave_up: bool = False) -> None:
        """An outage of the target ends with the last alert that had failed."""
        if place in self._failing:
            self._failing.discard(place)
            (OUTAGES.gave_up if gave_up else OUTAGES.recovered)((self, place))

    def _give_up(self, what: str, exc: Exception) -> None:
        self._metrics.deliveries.labels("invalid").inc()
        log.error("no alert can be made of %s of %s: %s", what, COST_ANOMALIES, exc)

    async def _tell_pending(self) -> None:
        count = len(self._pending)
        for partition in self._consumer.assignment():
            end = self._consumer.highwater(partition)
            if end is not None:
                count += max(0, end - await self._consumer.position(partition))
        self._metrics.pending.labels(self._target.name).set(count)

    async def _commit(self) -> None:
        """What can't be committed now is committed with what follows."""
        offsets = self._pending.offsets()
        if not offsets:
            return
        try:
            await self._consumer.commit(
                {
                    where: offset
                    for p, following in offsets.items()
                    for where, offset in self._places[p].at(following).items()
                }
            )
        except KafkaError as exc:
            problem = f"Kafka: alerts to {self._target.name} up to {offsets} not committed: {exc!r}"
            OUTAGES.away("Kafka", self, problem)
        else:
            OUTAGES.recovered(self)
            self._pending.committed(offsets)

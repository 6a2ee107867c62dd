"""Reads ``usage.capacity.v1``, stores each heartbeat, and judges it when its usage has arrived.

Stored first, then judged; the verdict is stored and published, and then the offset is committed. A
crash in between repeats all of it: the same rows, and verdicts under the same ``ce_id``. What was
read and is not yet judged is read again. What can't be read, or lies in the future, goes to the
dead-letter topic, before its offset is committed: no message stops the reconciler.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from metering.capacity import CapacityHeartbeat
from metering.errors import SinkUnavailable, UnreadableUsage
from metering.heartbeats import heartbeat_of
from metering.ledger import Refusal
from metering.messages import Message
from metering.reconciliation import Verdict
from sinks.clickhouse.capacity import CapacityWriter
from sinks.outages import OUTAGES
from sinks.prometheus import ReconcilerMetrics
from streams.group_place import GroupPlace
from streams.publisher import Publisher, refused_heartbeat_record, verdict_record
from streams.reconciler.judging import Judging
from streams.reconciler.pending import Pending
from streams.reconciler.telling import Telling
from streams.record_message import message_of
from streams.settings import Settings
from streams.topics import USAGE_CAPACITY

log = logging.getLogger(__name__)

GROUP_ID = "inference-meter-reconciler"
POLL_MS = 500
AT_A_TIME = 500
RETRY_FIRST_S = 0.2
RETRY_MOST_S = 5.0
Taken = TypeVar("Taken")


class Reconciler:
    def __init__(
        self,
        settings: Settings,
        writer: CapacityWriter,
        publisher: Publisher,
        judging: Judging,
        metrics: ReconcilerMetrics,
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._publisher = publisher
        self._judging = judging
        self._metrics = metrics
        self._telling = Telling(metrics)
        self._pending = Pending(round(settings.reconcile_grace_s * 10**9))
        self._partition = TopicPartition(USAGE_CAPACITY, 0)
        self._place = GroupPlace(settings, GROUP_ID, self._partition)
        self._committed = -1
        self._consumer: Any = None

    async def run(self) -> None:
        """Until cancelled. Waits for as long as Kafka or ClickHouse is away.

        Raises:
            TopicReplaced: the topic was deleted and created again.
        """
        try:
            await _until_taken(self._connect)
            while True:
                await self._place.check()
                batches = await self._consumer.getmany(
                    self._partition, timeout_ms=POLL_MS, max_records=AT_A_TIME
                )
                await self._store(batches.get(self._partition, []))
                await self._judge(time.time_ns())
        finally:
            await self._disconnect()

    async def _connect(self) -> None:
        """Raises SinkUnavailable: Kafka does not answer."""
        await self._disconnect()
        self._consumer = consumer = AIOKafkaConsumer(
            **self._settings.kafka_client(),
            group_id=GROUP_ID,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        try:
            await consumer.start()
            consumer.assign([self._partition])
            end = (await consumer.end_offsets([self._partition]))[self._partition]
            committed = await self._place.find(end)
        except KafkaError as exc:
            raise SinkUnavailable(f"Kafka at {self._settings.kafka}", 0, repr(exc)) from exc
        if committed is None:
            await consumer.seek_to_beginning(self._partition)
        else:
            consumer.seek(self._partition, committed)

    async def _disconnect(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()

    async def _store(self, records: list[Any]) -> None:
        now_ns = time.time_ns()
        read = [(r.offset, _beat_or_refusal(message_of(r, now_ns))) for r in records]
        beats = [found for _, found in read if isinstance(found, CapacityHeartbeat)]
        refusals = [found for _, found in read if isinstance(found, Refusal)]
        if beats:
            write = partial(asyncio.to_thread, self._writer.write_heartbeats, beats)
            await _until_taken(write)
            self._metrics.heartbeats.inc(len(beats))
        if refusals:
            letters = [refused_heartbeat_record(r, self._partition.partition) for r in refusals]
            await _until_taken(partial(self._publisher.publish, letters))
            self._report(refusals)
        for offset, found in read:
            beat = found if isinstance(found, CapacityHeartbeat) else None
            self._pending.add(offset, beat, now_ns)

    def _report(self, refusals: list[Refusal]) -> None:
        """One line a reason, not one a message."""
        for reason, count in Counter(r.reason for r in refusals).items():
            self._metrics.refused.labels(reason).inc(count)
            first = next(r for r in refusals if r.reason == reason)
            log.error(
                "%d heartbeats refused as %s, see usage.dlq.v1; the first, at offset %d: %s",
                count, reason, first.message.offset, first.detail,
            )  # fmt: skip

    async def _judge(self, now_ns: int) -> None:
        for beat in self._pending.ripe(now_ns):
            verdicts = await _until_taken(partial(self._verdicts, beat))
            if verdicts:
                await _until_taken(partial(self._tell, verdicts))
                self._telling.tell(beat.host, verdicts)
            elif beat.boot_id is not None and not beat.models:
                self._telling.clear(beat.host)
            else:
                self._telling.expire(beat.time_ns)
        done = self._pending.done(now_ns)
        if done > max(0, self._committed):
            await self._commit(done)

    async def _verdicts(self, beat: CapacityHeartbeat) -> list[Verdict]:
        """None where a heartbeat can't be compared: it must not stop those behind it."""
        try:
            return await asyncio.to_thread(self._judging.judge, beat)
        except SinkUnavailable:
            raise
        except Exception:
            self._metrics.failed.inc()
            log.exception("heartbeat %s@%d was not compared", beat.source, beat.sequence)
            return []

    async def _tell(self, verdicts: list[Verdict]) -> None:
        await asyncio.to_thread(self._writer.write_verdicts, verdicts, time.time_ns())
        await self._publisher.publish([verdict_record(v) for v in verdicts])

    async def _commit(self, offset: int) -> None:
        try:
            await self._consumer.commit(self._place.at(offset))
            self._committed = offset
        except KafkaError as exc:
            OUTAGES.away("Kafka", self, f"Kafka: offset {offset} not committed: {exc!r}")
        else:
            OUTAGES.recovered(self, "Kafka")


async def _until_taken(attempt: Callable[[], Awaitable[Taken]]) -> Taken:
    delay_s = RETRY_FIRST_S
    while True:
        try:
            taken = await attempt()
        except SinkUnavailable as exc:
            OUTAGES.failed(_until_taken, exc)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_MOST_S)
        else:
            OUTAGES.recovered(_until_taken)
            return taken


def _beat_or_refusal(message: Message) -> CapacityHeartbeat | Refusal:
    try:
        return heartbeat_of(message)
    except UnreadableUsage as exc:
        return Refusal(message, exc.reason, exc.detail)

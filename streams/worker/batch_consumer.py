"""Faust's consumer of Kafka, except that what was fetched is handed over many messages at a time.

Faust makes two asyncio tasks for each message, which cost more than all that is decided about the
requests in it. Here the messages of a partition go to its agent's queue in one step. Group, flow
control, back pressure, gaps and commits stay Faust's; so do messages that find the queue full,
and topics that have another key or value type than bytes, or more than one reader, such as the
changelogs. Messages of transactions that were not committed are not read.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any
from weakref import WeakSet

import faust
from aiokafka import AIOKafkaConsumer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ack_lock

from metering.messages import Message

ENOUGH = 2_000
ENOUGH_BYTES = 16 * 1024**2
"""Of their values. A fetch more may come on top: 1 MiB of each partition, or one larger message."""
ROOM_S = 0.02
"""So often is a queue looked at that had enough."""
_value = itemgetter(1)


class BatchApp(faust.App):
    """A Faust app that reads by way of :class:`BatchConsumer`."""

    consumer: BatchConsumer

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.batched: WeakSet[Any] = WeakSet()
        """The queues of those who take many messages at a time."""
        self.before_start: list[Callable[[], Awaitable[None]]] = []
        """Awaited before anything is fetched."""

    async def on_start(self) -> None:
        for step in self.before_start:
            await step()
        await super().on_start()

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)


class BatchConsumer(driver.Consumer):
    """A queue gets ``(TP, Message)`` for what is handed over here, and Faust's events for the rest.

    Nothing is fetched of a partition while its queue holds ``ENOUGH`` messages or ``ENOUGH_BYTES``.
    """

    app: BatchApp

    def _new_consumer_thread(self) -> Any:
        return _CommittedOnly(self, loop=self.loop, beacon=self.beacon)

    def committed_to(self, tp: TP) -> int | None:
        """The group's committed offset, as Faust knows it; ``None``: there is none."""
        return self._committed_offset[tp]

    async def rewind(self, tp: TP) -> None:
        """Read the partition from its beginning: it is another topic's than it was."""
        for known in (self._gap, self._acked, self._acked_index, self._committed_offset):
            known.pop(tp, None)
        await self.seek(tp, 0)

    def ack_all(self, tp: TP, offsets: Iterable[int]) -> None:
        """What ``ack`` is for one message."""
        with ack_lock:
            committed, index = self._committed_offset[tp], self._acked_index[tp]
            new = [n for n in offsets if n not in index and (committed is None or n >= committed)]
            index.update(new)
            self._acked[tp].extend(new)
            self._n_acked += len(new)

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109  # Faust's name
        """What Faust still has to hand over itself; it looks at all conditions once more."""
        records, active = await super()._wait_next_records(timeout)
        if (
            not records
            or self.should_stop
            or not self.flow_active
            or not self.app.flow_control.is_active()
        ):
            return records, active
        left = {
            tp: found
            for tp, found in records.items()
            if not (active is None or tp in active or tp in self._buffered_partitions)
            or not self._hand_over(tp, found)
        }
        return left, active

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:  # noqa: ASYNC109
        open_ = {tp for tp in active_partitions if not self._has_enough(tp)}
        if open_ and len(open_) == len(active_partitions):
            return await super()._getmany(open_, timeout)
        if open_:
            return await super()._getmany(open_, min(timeout, ROOM_S))
        await self.sleep(ROOM_S)
        return {}

    def _has_enough(self, tp: TP) -> bool:
        queue = self._queue_of(tp)
        if queue is None:
            return False
        return queue.qsize() >= ENOUGH or sum(map(_size_of, queue._queue)) >= ENOUGH_BYTES

    def _hand_over(self, tp: TP, records: Sequence[Any]) -> bool:
        """Whether it has; nothing is awaited, so nothing can come in between."""
        queue = self._queue_of(tp)
        if queue is None:
            return False
        self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
        read = self._read_offset[tp]
        if read is not None and records[0].offset < read:
            records = [r for r in records if r.offset >= read]
        if not records:
            return True
        self._note_gaps(tp, read, records)
        arrived = [(tp, _message(record)) for record in records]
        queue._queue.extend(arrived[:-1])  # asyncio's has no way to put many
        queue.force_put_nowait(arrived[-1])
        self._read_offset[tp] = records[-1].offset
        return True

    def _queue_of(self, tp: TP) -> Any:
        """Of the only one who reads the partition, and takes many messages at a time."""
        conductor: Any = self.app.topics
        channels = conductor._tp_index.get(tp, ())
        if len(channels) != 1:
            return None
        (channel,) = channels
        return channel.queue if channel.queue in self.app.batched else None

    def _note_gaps(self, tp: TP, read: int | None, records: Sequence[Any]) -> None:
        """Offsets that hold no message must not hold commits back."""
        if not self.app.topics.acks_enabled_for(tp.topic):
            return
        before = read if read else records[0].offset - 1
        if records[-1].offset - before == len(records):
            return
        committed = self._committed_offset[tp]
        gaps = self._gap[tp]
        for record in records:
            first = before + 1 if committed is None else max(before + 1, committed + 1)
            if first < record.offset:
                gaps.addi(first, record.offset)
            before = record.offset
        gaps.merge_overlaps()


class _Transport(driver.Transport):
    Consumer = BatchConsumer


class _CommittedOnly(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        """Faust has no setting for it but its own transactions."""
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        return consumer


def _size_of(item: Any) -> int:
    """Of what waits in a queue: handed over here, or by Faust."""
    value = item[1].value if type(item) is tuple else item.message.value
    return len(value or b"")


def _message(record: Any) -> Message:
    """A broker before 0.10 gives no stamp, and Kafka has null values, in headers too."""
    stamp_ms, headers = record.timestamp, record.headers
    if None in map(_value, headers):
        headers = tuple([(name, value or b"") for name, value in headers])
    stamp_ns = time.time_ns() if stamp_ms is None else stamp_ms * 10**6
    return Message(record.offset, stamp_ns, record.value or b"", headers)


def message_of_event(event: Any) -> tuple[TP, Message]:
    """Of an event that Faust has handed over; the stamp is in seconds there."""
    came = event.message
    stamp_ns = time.time_ns() if came.timestamp is None else int(came.timestamp * 1000) * 10**6
    headers = tuple((name, value or b"") for name, value in _pairs(came.headers))
    return came.tp, Message(came.offset, stamp_ns, came.value or b"", headers)


def _pairs(headers: Any) -> Iterable[tuple[str, bytes | None]]:
    found: Iterable[tuple[str, bytes | None]] = (
        headers.items() if hasattr(headers, "items") else headers or ()
    )
    return found

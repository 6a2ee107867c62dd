"""What the worker's consumer does with a fetch, without Kafka."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from intervaltree import IntervalTree
from mode.utils.queues import FlowControlEvent, FlowControlQueue

from streams.worker.batch_consumer import ENOUGH, ENOUGH_BYTES, BatchConsumer
from streams.worker.intake import Take, takes

USAGE = TP("usage", 0)


def record(offset: int) -> Any:
    return SimpleNamespace(offset=offset, timestamp=7, value=None, headers=(("name", None),))


class Consumer(BatchConsumer):
    """As far as it is needed, with one topic and its queue."""

    def __init__(self) -> None:
        self.queue: Any = FlowControlQueue(10_000, flow_control=FlowControlEvent())
        channel = SimpleNamespace(queue=self.queue)
        self.app: Any = SimpleNamespace(
            batched={self.queue},
            monitor=SimpleNamespace(track_tp_end_offset=lambda *_: None),
            topics=SimpleNamespace(
                _tp_index={USAGE: {id(channel): channel}.values()}, acks_enabled_for=lambda _: True
            ),
        )
        self._gap = defaultdict(IntervalTree)
        self._acked = defaultdict(list)
        self._acked_index = defaultdict(set)
        self._read_offset = defaultdict(lambda: None)
        self._committed_offset = defaultdict(lambda: None)
        self._unacked_messages = set()

        self.log: Any = SimpleNamespace(dev=lambda *_: None)
        self.sought: list[tuple[TP, int]] = []

    async def _seek(self, partition: TP, offset: int) -> None:
        self.sought.append((partition, offset))

    def highwater(self, tp: TP) -> int:
        return 0


class AsyncChannel:
    """Whoever iterates over it gets itself, with its queue."""

    def __init__(self, channel: Any) -> None:
        self.queue = channel.queue

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any: ...


async def first_take(consumer: Consumer, most: int) -> Take:
    consumer.app.consumer = consumer
    stream = SimpleNamespace(channel=AsyncChannel(consumer), app=consumer.app)
    async for taken in takes(stream, most, 0.0):
        (only,) = taken
        return only
    raise AssertionError


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


async def test_offsets_are_committed_behind_acknowledged_takes_alone(consumer: Consumer) -> None:
    assert consumer._hand_over(USAGE, [record(n) for n in range(10)])
    taken = await first_take(consumer, 4)
    assert [m.offset for m in taken.messages] == [0, 1, 2, 3]
    assert consumer._new_offset(USAGE) is None
    assert taken in consumer.unacked
    taken.ack()
    assert consumer._new_offset(USAGE) == 4
    assert taken not in consumer.unacked
    assert consumer.queue.qsize() == 6


async def test_each_partition_has_a_take_of_its_own(consumer: Consumer) -> None:
    other = TP("usage", 1)
    consumer.app.topics._tp_index[other] = consumer.app.topics._tp_index[USAGE]
    consumer._hand_over(USAGE, [record(0), record(1)])
    consumer._hand_over(other, [record(7)])
    consumer._hand_over(USAGE, [record(2)])
    consumer.app.consumer = consumer
    channel = SimpleNamespace(queue=consumer.queue)
    stream = SimpleNamespace(channel=AsyncChannel(channel), app=consumer.app)
    first, second = await anext(takes(stream, 10, 0.0))
    assert [m.offset for m in first.messages] == [0, 1, 2]
    assert (second.partition, [m.offset for m in second.messages]) == (1, [7])
    second.ack()
    assert consumer._new_offset(other) == 8
    assert consumer._new_offset(USAGE) is None


async def test_nulls_are_read_as_nothing(consumer: Consumer) -> None:
    consumer._hand_over(USAGE, [record(0)])
    (message,) = (await first_take(consumer, 4)).messages
    assert (message.value, message.headers, message.appended_ns) == (
        b"",
        (("name", b""),),
        7 * 10**6,
    )


async def test_offsets_without_a_message_hold_no_commit_back(consumer: Consumer) -> None:
    consumer._hand_over(USAGE, [record(0), record(1)])
    consumer._hand_over(USAGE, [record(5), record(6), record(9)])
    taken = await first_take(consumer, 10)
    taken.ack()
    assert consumer._new_offset(USAGE) == 10


async def test_what_is_missing_and_unacknowledged_is_not_committed(consumer: Consumer) -> None:
    consumer._hand_over(USAGE, [record(0), record(1), record(5)])
    (await first_take(consumer, 2)).ack()
    assert consumer._new_offset(USAGE) == 2
    await asyncio.sleep(0)
    assert consumer._new_offset(USAGE) is None


async def test_what_was_read_before_is_passed_over(consumer: Consumer) -> None:
    consumer._read_offset[USAGE] = 3
    consumer._hand_over(USAGE, [record(n) for n in range(5)])
    assert [m.offset for _, m in consumer.queue._queue] == [3, 4]


async def test_who_does_not_take_many_gets_them_from_faust(consumer: Consumer) -> None:
    consumer.app.batched.clear()
    assert not consumer._hand_over(USAGE, [record(0)])
    assert consumer.queue.empty()


async def test_a_full_queue_is_not_fetched_for(consumer: Consumer) -> None:
    assert not consumer._has_enough(USAGE)
    consumer._hand_over(USAGE, [record(n) for n in range(ENOUGH)])
    assert consumer._has_enough(USAGE)


async def test_nothing_is_fetched_while_large_messages_wait(consumer: Consumer) -> None:
    large = SimpleNamespace(offset=0, timestamp=7, value=b" " * (ENOUGH_BYTES // 2), headers=())
    assert consumer._hand_over(USAGE, [large])
    assert not consumer._has_enough(USAGE)
    consumer.queue.put_nowait(SimpleNamespace(message=large))  # of Faust's own
    assert consumer._has_enough(USAGE)
    await first_take(consumer, 1)
    assert not consumer._has_enough(USAGE)


async def test_a_partition_of_a_new_topic_is_read_and_committed_from_its_beginning(
    consumer: Consumer,
) -> None:
    consumer._committed_offset[USAGE] = consumer._read_offset[USAGE] = 40
    assert consumer._hand_over(USAGE, [record(n) for n in range(3)])
    assert consumer.queue.empty(), "below what was read of the topic before"
    await consumer.rewind(USAGE)
    assert consumer.sought == [(USAGE, 0)]
    assert consumer._hand_over(USAGE, [record(n) for n in range(3)])
    taken = await first_take(consumer, 3)
    taken.ack()
    assert consumer._new_offset(USAGE) == 3
    assert consumer._should_commit(USAGE, 3)

"""Messages to an agent many at a time, straight from the queue that the consumer fills.

Faust's own stream hands them over one by one, through a chain of awaits that costs as much per
message as all that is decided about the requests in it. What that chain does for the guarantee is
done here too: what was taken counts as open (``unacked``) until it is acknowledged, and offsets are
committed only behind acknowledged ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from faust.types import TP

from metering.messages import Message
from streams.worker.batch_consumer import BatchConsumer, message_of_event


class Take:
    """Some messages of a partition, in the order in which they came."""

    refcount = 1  # Faust shows it of what it waits for

    def __init__(self, consumer: BatchConsumer, tp: TP, messages: Sequence[Message]) -> None:
        self.acked = False
        self.partition: int = tp.partition
        self.messages = messages
        self.size = sum(len(message.value) for message in messages)
        self._tp = tp
        self._consumer = consumer
        open_: Any = consumer.unacked
        self._unacked = open_
        self._unacked.add(self)

    def ack(self) -> None:
        """All that follows from the messages is durable: their offsets may be committed."""
        self._consumer.ack_all(self._tp, [m.offset for m in self.messages])
        self.acked = True
        self._unacked.discard(self)


async def takes(stream: Any, most: int, within_s: float) -> AsyncIterator[Sequence[Take]]:
    """Up to ``most`` messages at a time, those of each partition apart; fewer when ``within_s`` has
    brought no more. In place of ``stream.noack_take``: whoever gets them calls ``ack``."""
    queue = aiter(stream.channel).queue
    stream.app.batched.add(queue)
    while True:
        try:
            arrived = [await queue.get()]
        except StopAsyncIteration:  # so Faust says that it ends
            return
        _drain(queue, arrived, most)
        if len(arrived) < most and within_s:
            await asyncio.sleep(within_s)
            _drain(queue, arrived, most)
        messages: dict[TP, list[Message]] = {}
        for item in arrived:
            tp, message = item if type(item) is tuple else message_of_event(item)
            messages.setdefault(tp, []).append(message)
        yield [Take(stream.app.consumer, tp, own) for tp, own in messages.items()]


def _drain(queue: Any, arrived: list[Any], most: int) -> None:
    """The last by Faust's own way, which wakes who waits for room."""
    count = min(most - len(arrived), queue.qsize())
    if count:
        pop = queue._queue.popleft  # asyncio's has no way to get many
        arrived += [pop() for _ in range(count - 1)]
        arrived.append(queue.get_nowait())

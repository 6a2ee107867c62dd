"""Messages to the agent many at a time, straight from the queue that Faust's conductor fills.

Faust's own stream hands them over one by one, through a chain of awaits that costs as much per
message as all that is decided about the requests in it. What that chain does for the guarantee is
done here too: a message that was taken counts as open (``unacked``) until it is acknowledged, and
offsets are committed only behind acknowledged ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any


async def takes(stream: Any, most: int, within_s: float) -> AsyncIterator[Sequence[Any]]:
    """Events, up to ``most`` at a time; fewer when ``within_s`` has brought no more. In place of
    ``stream.noack_take``: whoever gets them calls each one's ``ack``."""
    queue = aiter(stream.channel).queue
    consumer = stream.app.consumer
    while True:
        events = [await queue.get()]
        _drain(queue, events, most)
        if len(events) < most:
            await asyncio.sleep(within_s)
            _drain(queue, events, most)
        for event in events:
            event.message.tracked = True
            consumer.unacked.add(event.message)
        yield events


def _drain(queue: Any, events: list[Any], most: int) -> None:
    try:
        while len(events) < most:
            events.append(queue.get_nowait())
    except asyncio.QueueEmpty:
        return

"""Topics that are deleted and created again while their messages are counted.

The offsets of the new topic say nothing of the old one's. So the worker notes at its start, before
it has fetched anything, which topics there are, by Kafka's ids; it ends when one of them is
replaced, for what it has fetched may be of either; and the next one begins a new epoch
(``metering.epochs``) in what is stored under the old id.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from aiokafka.errors import KafkaError

from metering.epochs import Epoch
from metering.errors import SinkUnavailable
from metering.messages import Message
from streams.settings import Settings
from streams.topic_ids import NO_ID, TopicReplaced, topic_ids
from streams.topics import ADDITIONS, LEDGERS, TOTALS, USAGE_BATCHES

log = logging.getLogger(__name__)

CHECK_S = 2.0
TIMEOUT_S = 10.0
WATCHED = (USAGE_BATCHES, LEDGERS, ADDITIONS, TOTALS)
ReadStretch = Callable[[int, int], Awaitable[tuple[list[Message], int]]]


def end(why: str) -> NoReturn:
    """End the process at once, so that it begins again with what is stored."""
    log.critical("%s", why)
    logging.shutdown()
    os._exit(os.EX_TEMPFAIL)


class TopicWatch:
    """The ids of the worker's topics as this process has first seen them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._first: dict[str, str] = {}

    async def check(self) -> None:
        """Raises TopicReplaced; SinkUnavailable: Kafka does not answer."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                now = await topic_ids(self._settings, WATCHED)
        except (KafkaError, OSError, TimeoutError) as exc:
            raise SinkUnavailable(f"Kafka at {self._settings.kafka}", 0, repr(exc)) from exc
        for name, topic_id in now.items():
            first = self._first.setdefault(name, topic_id)
            if first != topic_id:
                raise TopicReplaced(name, first, topic_id)

    async def check_or_end(self, *needed: str) -> None:
        """End the process where a topic was replaced. It begins again with the new one.

        Raises:
            SinkUnavailable: nobody says which topic one that is ``needed`` is.
        """
        try:
            await self.check()
        except SinkUnavailable as exc:
            if needed:
                raise
            log.debug("topics are not checked: %s", exc)
        except TopicReplaced as exc:
            end(f"{exc}; the worker ends, and begins again with the new topic")
        for topic in needed:
            if topic not in self._first:
                raise SinkUnavailable(f"Kafka topic {topic}", 0, "it is not there")

    def id_of(self, topic: str) -> str:
        """The empty string: Kafka gives it none."""
        found = self._first.get(topic, NO_ID)
        return "" if found == NO_ID else found


def tell_epoch(topic: str, partition: int, known: Epoch, now: Epoch) -> None:
    if now.begin != known.begin:
        log.warning(
            "%s, partition %d, was deleted and created again (id %s, now %s): its messages are "
            "counted from its beginning, and their positions go on at %d",
            topic,
            partition,
            known.topic_id or "not known",
            now.topic_id,
            now.begin,
        )


def moved(messages: Sequence[Message], begin: int) -> Sequence[Message]:
    """The same by their positions."""
    return [m._replace(offset=m.offset + begin) for m in messages] if begin else messages


def by_position(read_stretch: ReadStretch, begin: int) -> ReadStretch:
    """Reads what lies between two positions."""
    if not begin:
        return read_stretch

    async def read(first: int, end: int) -> tuple[list[Message], int]:
        found, next_offset = await read_stretch(first - begin, end - begin)
        return list(moved(found, begin)), next_offset + begin

    return read

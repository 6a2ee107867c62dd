"""How far a consumer group has come in a topic of one partition, and in which topic of that name.

What the group commits carries the topic's id, as the commit's metadata. A topic that was deleted
and created again begins anew at offset 0, and what was committed of the one before says nothing
of it.
"""

from __future__ import annotations

import logging
import time

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from streams.kafka_admin import kafka_admin
from streams.settings import Settings
from streams.topic_ids import NO_ID, TopicReplaced, topic_ids

log = logging.getLogger(__name__)

CHECK_S = 5.0


class GroupPlace:
    def __init__(self, settings: Settings, group: str, partition: TopicPartition) -> None:
        self._settings = settings
        self._group = group
        self._partition = partition
        self._topic_id = NO_ID
        self._checked_at = 0.0
        self.is_replaced = False
        """The group has committed of a topic that was deleted, and not yet of this one."""

    async def find(self, end: int) -> int | None:
        """The committed offset; ``None`` where the group has committed nothing of the topic that is
        there now. ``end`` is the offset that its next message gets.

        Raises:
            KafkaError: no broker answers.
        """
        topic = self._partition.topic
        self._topic_id = (await topic_ids(self._settings, [topic])).get(topic, NO_ID)
        self._checked_at = time.monotonic()
        async with kafka_admin(self._settings) as admin:
            found = (
                await admin.list_consumer_group_offsets(self._group, partitions=[self._partition])
            ).get(self._partition)
        if found is None or found.offset < 0:
            return None
        is_another = NO_ID not in {self._topic_id, found.metadata or NO_ID} and (
            found.metadata != self._topic_id
        )
        self.is_replaced = is_another or found.offset > end
        if self.is_replaced:
            log.warning(
                "topic %s was deleted and created again (id %s, now %s): it is read from its "
                "beginning, and not from the committed offset %d",
                topic,
                found.metadata or "not known",
                self._topic_id,
                found.offset,
            )
            return None
        return int(found.offset)

    def at(self, offset: int) -> dict[TopicPartition, OffsetAndMetadata]:
        """To be committed."""
        return {self._partition: OffsetAndMetadata(offset, self._topic_id)}

    async def check(self) -> None:
        """Now and then, whether the topic is still the one that was found.

        Raises:
            TopicReplaced: it is not. What was read may be of either; the process ends, and begins
                again with the new one.
        """
        if time.monotonic() < self._checked_at + CHECK_S:
            return
        self._checked_at = time.monotonic()
        topic = self._partition.topic
        try:
            now = (await topic_ids(self._settings, [topic])).get(topic, NO_ID)
        except (KafkaError, OSError) as exc:
            log.debug("topic %s is not checked: %r", topic, exc)
            return
        if NO_ID in {now, self._topic_id}:
            return
        if now != self._topic_id:
            raise TopicReplaced(topic, self._topic_id, now)

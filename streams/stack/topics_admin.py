"""Creates the project's topics where they do not exist yet."""

from __future__ import annotations

import asyncio
import time

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from metering.errors import StackError
from streams.settings import Settings
from streams.stack.probes import quiet_aiokafka
from streams.topics import TOPICS, Topic

_TRY_FOR_S = 15.0


async def ensure_topics(settings: Settings) -> None:
    """Idempotent; an existing topic stays as it is, whatever its configuration.

    Raises:
        StackError: Kafka refuses a topic, or can't be reached for some seconds.
    """
    deadline = time.monotonic() + _TRY_FOR_S
    while True:
        try:
            with quiet_aiokafka():
                await _create_missing(settings)
        except (KafkaError, OSError, TimeoutError) as exc:
            lasting = isinstance(exc, KafkaError) and not exc.retriable
            if lasting or time.monotonic() >= deadline:
                raise StackError(f"can't create topics on {settings.kafka}: {exc!r}") from exc
            await asyncio.sleep(0.5)
        else:
            return


async def _create_missing(settings: Settings) -> None:
    admin = AIOKafkaAdminClient(**settings.kafka_client())
    try:
        await admin.start()
        there = set(await admin.list_topics())
        new = [_new_topic(topic) for topic in TOPICS if topic.name not in there]
        if not new:
            return
        answer = await admin.create_topics(new)
        for name, code, *rest in answer.topic_errors:
            problem = for_code(code)
            if code != 0 and problem is not TopicAlreadyExistsError:
                raise problem(f"topic {name}: {rest[0] if rest else ''}")
    finally:
        await admin.close()


def _new_topic(topic: Topic) -> NewTopic:
    """Replicated as the cluster's default says (-1, since Kafka 2.4).

    aiokafka lets -1 pass only beside replica assignments, so there are empty ones.
    """
    return NewTopic(
        topic.name,
        topic.partitions,
        replication_factor=-1,
        replica_assignments={},
        topic_configs=topic.configs,
    )

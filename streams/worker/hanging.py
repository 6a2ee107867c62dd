"""Transactions that nobody will end, and their end.

A broker that is killed while it ends a transaction may come back, take the transaction for ended
and never have written its markers (Kafka 4.3, one node: it looks for the partitions' leaders before
it knows them, and passes over them as deleted). What was sent in it is then neither there nor not:
readers of committed records stand still before it, and the next transaction of the same producer
would make it visible, whatever had become of it.

A partition's new owner has fenced the one before it, and nobody else writes to the partition of
its state. So if that still has an open end, it is such a transaction; it is aborted, in every
partition that it may have reached. Its messages are read and counted again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from metering.errors import SinkUnavailable
from streams.settings import Settings

log = logging.getLogger(__name__)

LOOKS = 20
LOOK_EVERY_S = 0.1


async def end_hanging(
    settings: Settings,
    producer: AIOKafkaProducer,
    state: TopicPartition,
    reached: Iterable[str],
) -> None:
    """``producer`` is transactional and the only one who writes to ``state``; its transactions have
    written to that and to the topics ``reached``.

    Raises:
        SinkUnavailable: it hangs still.
        KafkaError: Kafka does not answer.
    """
    if not await _is_open(settings, state):
        return
    log.warning("a transaction of %s was never ended: aborted now", state)
    await producer.begin_transaction()
    sent = [await producer.send(state.topic, value=None, key=b"-", partition=state.partition)]
    for topic in reached:
        for partition in await producer.partitions_for(topic):
            sent.append(await producer.send(topic, value=None, key=b"-", partition=partition))
    await asyncio.gather(*sent)
    await producer.abort_transaction()
    for _ in range(LOOKS):
        if not await _is_open(settings, state):
            return
        await asyncio.sleep(LOOK_EVERY_S)
    raise SinkUnavailable(f"Kafka partition {state}", 0, "a transaction in it does not end")


async def _is_open(settings: Settings, partition: TopicPartition) -> bool:
    committed = await _end(settings, partition, "read_committed")
    return committed < await _end(settings, partition, "read_uncommitted")


async def _end(settings: Settings, partition: TopicPartition, level: str) -> int:
    consumer = AIOKafkaConsumer(
        **settings.kafka_client(), enable_auto_commit=False, isolation_level=level
    )
    try:
        await consumer.start()
        return int((await consumer.end_offsets([partition]))[partition])
    finally:
        await consumer.stop()

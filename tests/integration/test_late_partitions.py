"""Partitions that a client was not told of when it joined its group: it hears of them soon.

So it goes with a broker that is just back from a kill: for a moment it knows of no topics.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.settings import METADATA_MAX_AGE_MS
from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from streams.stack.topics_admin import apply_topics
from streams.topics import Topic
from streams.worker.app import bare_app

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]
SOON_S = 60 + 3 * METADATA_MAX_AGE_MS / 1000


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("late")
    async with Stack(StackConfig(folder, preferred_ports=False), only=("kafka",)) as stack:
        yield stack


async def have(stack: Stack, topic: str, partitions: int) -> None:
    await apply_topics(stack.settings, [Topic(topic, partitions)])


async def test_a_group_of_aiokafka_shares_out_what_it_was_not_told_of(stack: Stack) -> None:
    await have(stack, "plain", 1)
    consumer = AIOKafkaConsumer("plain", **stack.settings.kafka_client(), group_id="plain")
    await consumer.start()
    try:
        assert consumer.assignment() == {TopicPartition("plain", 0)}
        await have(stack, "plain", 2)
        deadline = time.monotonic() + SOON_S
        while TopicPartition("plain", 1) not in consumer.assignment():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
    finally:
        await consumer.stop()


async def test_the_workers_group_reads_what_it_was_not_told_of(
    stack: Stack, tmp_path: Path
) -> None:
    await have(stack, "worked", 1)
    app = bare_app(stack.settings.model_copy(update={"state_dir": tmp_path}))
    read: asyncio.Queue[bytes] = asyncio.Queue()

    async def keep(values: Any) -> None:
        async for value in values:
            read.put_nowait(value)

    app.agent(app.topic("worked", key_type=bytes, value_type=bytes))(keep)
    producer = AIOKafkaProducer(**stack.settings.kafka_client())
    await producer.start()
    await app.start()
    try:
        await producer.send_and_wait("worked", b"first", partition=0)
        assert await asyncio.wait_for(read.get(), 30) == b"first"
        await have(stack, "worked", 2)
        deadline = time.monotonic() + SOON_S
        while len(await producer.partitions_for("worked")) < 2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        await producer.send_and_wait("worked", b"second", partition=1)
        assert await asyncio.wait_for(read.get(), SOON_S) == b"second"
    finally:
        await app.stop()
        await producer.stop()

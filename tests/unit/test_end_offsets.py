"""Where partitions end: few requests, never an answer from before the question."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from metering.errors import SinkUnavailable
from streams.settings import Settings
from streams.worker import end_offsets as module
from streams.worker.end_offsets import EndOffsets


class Kafka:
    def __init__(self) -> None:
        self.made: list[Consumer] = []
        self.ends = dict.fromkeys(range(4), 0)
        self.requests: list[list[int]] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.away = False

    def consumer(self, **options: object) -> Consumer:
        assert options["isolation_level"] == "read_committed"
        self.made.append(Consumer(self))
        return self.made[-1]


class Consumer:
    def __init__(self, kafka: Kafka) -> None:
        self.kafka = kafka
        self.is_stopped = False

    async def start(self) -> None:
        await asyncio.sleep(0)
        if self.kafka.away:
            raise KafkaConnectionError("away")

    async def stop(self) -> None:
        self.is_stopped = True

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        kafka = self.kafka
        kafka.requests.append(sorted(p.partition for p in partitions))
        found = {p: kafka.ends[p.partition] for p in partitions if p.partition in kafka.ends}
        await kafka.answers.wait()
        if kafka.away:
            raise KafkaConnectionError("away")
        return found


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    kafka = Kafka()
    monkeypatch.setattr(module, "AIOKafkaConsumer", kafka.consumer)
    return kafka


async def test_those_who_ask_at_once_share_a_request(kafka: Kafka) -> None:
    kafka.ends = {0: 7, 1: 8, 2: 9, 3: 0}
    ends = EndOffsets(Settings())
    assert await asyncio.gather(*(ends.of("t", p) for p in range(4))) == [7, 8, 9, 0]
    assert kafka.requests == [[0, 1, 2, 3]]
    assert len(kafka.made) == 1


async def test_an_answer_is_never_from_before_the_question(kafka: Kafka) -> None:
    ends = EndOffsets(Settings())
    kafka.answers.clear()
    first = asyncio.create_task(ends.of("t", 0))
    await asyncio.sleep(0.01)
    kafka.ends[0] = 5
    second = asyncio.create_task(ends.of("t", 0))
    await asyncio.sleep(0.01)
    kafka.answers.set()
    assert (await first, await second) == (0, 5)


async def test_a_client_that_fails_is_closed_and_the_next_question_has_a_new_one(
    kafka: Kafka,
) -> None:
    ends = EndOffsets(Settings())
    kafka.away = True
    for _ in range(2):
        told = await asyncio.gather(*(ends.of("t", p) for p in (0, 1)), return_exceptions=True)
        assert [type(problem) for problem in told] == [SinkUnavailable] * 2
    assert all(consumer.is_stopped for consumer in kafka.made)
    kafka.away = False
    assert await ends.of("t", 0) == 0
    await ends.stop()
    assert all(consumer.is_stopped for consumer in kafka.made)
    with pytest.raises(SinkUnavailable):
        await ends.of("t", 0)


async def test_a_partition_that_kafka_does_not_know_is_an_error_of_its_own(kafka: Kafka) -> None:
    ends = EndOffsets(Settings())
    known, unknown = await asyncio.gather(ends.of("t", 0), ends.of("t", 9), return_exceptions=True)
    assert known == 0
    assert isinstance(unknown, SinkUnavailable)

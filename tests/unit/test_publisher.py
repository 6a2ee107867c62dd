"""One producer for all who publish: started once, replaced when it fails, none left behind."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError

from metering.errors import SinkUnavailable
from streams import publisher as publisher_module
from streams.publisher import Publisher, Record
from streams.settings import Settings

RECORDS = [Record("topic", b"key", b"value", [])]


class Kafka:
    """Every producer that was made, and what becomes of it."""

    def __init__(self) -> None:
        self.made: list[Producer] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.refuses_to_start = 0
        self.refuses_to_send = 0

    def producer(self, **_: object) -> Producer:
        self.made.append(Producer(self))
        return self.made[-1]

    @property
    def left(self) -> list[Producer]:
        return [p for p in self.made if not p.is_stopped]


class Producer:
    def __init__(self, kafka: Kafka) -> None:
        self.kafka = kafka
        self.is_stopped = False
        self.sent = 0

    async def start(self) -> None:
        await asyncio.sleep(0)
        await self.kafka.answers.wait()
        if self.kafka.refuses_to_start:
            self.kafka.refuses_to_start -= 1
            raise KafkaConnectionError("away")

    async def stop(self) -> None:
        await asyncio.sleep(0)
        self.is_stopped = True

    async def send(self, *_: object, **__: object) -> asyncio.Future[object]:
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        await asyncio.sleep(0)
        if self.is_stopped:
            raise KafkaConnectionError("closed")
        if self.kafka.refuses_to_send:
            self.kafka.refuses_to_send -= 1
            future.set_exception(KafkaConnectionError("away"))
        else:
            self.sent += 1
            future.set_result(None)
        return future


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    kafka = Kafka()
    monkeypatch.setattr(publisher_module, "AIOKafkaProducer", kafka.producer)
    return kafka


async def test_those_who_publish_at_once_share_one_producer(kafka: Kafka) -> None:
    publisher = Publisher(Settings())
    await asyncio.gather(*(publisher.publish(RECORDS) for _ in range(4)))
    assert [p.sent for p in kafka.made] == [4]
    await publisher.stop()
    assert kafka.left == []


async def test_a_producer_that_does_not_start_is_stopped_and_all_who_wait_are_told(
    kafka: Kafka,
) -> None:
    publisher = Publisher(Settings())
    kafka.refuses_to_start = 1
    told = await asyncio.gather(
        *(publisher.publish(RECORDS) for _ in range(4)), return_exceptions=True
    )
    assert all(isinstance(problem, SinkUnavailable) for problem in told)
    assert kafka.left == []
    await publisher.publish(RECORDS)
    assert [p.sent for p in kafka.left] == [1]


async def test_those_who_fail_together_replace_the_producer_once(kafka: Kafka) -> None:
    publisher = Publisher(Settings())
    await publisher.start()
    kafka.refuses_to_send = 3
    told = await asyncio.gather(
        *(publisher.publish(RECORDS) for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(problem, SinkUnavailable) for problem in told)
    assert kafka.left == []
    await asyncio.gather(*(publisher.publish(RECORDS) for _ in range(3)))
    assert len(kafka.made) == 2
    assert len(kafka.left) == 1


async def test_a_producer_that_is_being_started_at_the_end_is_stopped_too(kafka: Kafka) -> None:
    publisher = Publisher(Settings())
    kafka.answers.clear()
    publishing = [asyncio.create_task(publisher.publish(RECORDS)) for _ in range(2)]
    await asyncio.sleep(0.01)
    await publisher.stop()
    for task in publishing:
        with pytest.raises(SinkUnavailable, match="ended"):
            await task
    assert kafka.left == []


async def test_nothing_is_started_after_the_end(kafka: Kafka) -> None:
    publisher = Publisher(Settings())
    await publisher.publish(RECORDS)
    await publisher.stop()
    with pytest.raises(SinkUnavailable, match="ended"):
        await publisher.publish(RECORDS)
    assert kafka.left == []


async def test_whoever_gives_up_while_a_producer_starts_takes_it_from_nobody(
    kafka: Kafka,
) -> None:
    publisher = Publisher(Settings())
    kafka.answers.clear()
    first, second = (asyncio.create_task(publisher.publish(RECORDS)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0)
    kafka.answers.set()
    await second
    assert first.cancelled()
    assert [p.sent for p in kafka.made] == [1]

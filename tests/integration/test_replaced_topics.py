"""Topics that are deleted and created again under a worker, on the real Kafka and ClickHouse.

The new topic's offsets begin with 0, below those that were counted. Nothing of it is taken for a
replay, no batch is counted twice, and the rows of windows that were open go on.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from aiokafka import AIOKafkaProducer

from metering.cloudevents import USAGE_BATCH_TYPE, encode_headers
from metering.usage import UsageBatch
from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from streams.topic_ids import topic_ids
from streams.topics import ADDITIONS, LEDGERS, USAGE_BATCHES
from tests.integration.test_stream_processes import CHIP, PRICES, Running, computed, settled
from tests.integration.topics import replace
from tests.waiting import until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
MakeBatch = Callable[..., UsageBatch]
MODEL = "replaced"


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder = tmp_path_factory.mktemp("replaced")
    (folder / "book.toml").write_text(PRICES)
    config = StackConfig(folder / "stack", price_book=folder / "book.toml", preferred_ports=False)
    said: list[str] = []
    async with Stack(config, said.append, only=("worker",)) as stack:
        yield Running(stack, said)


def made(batch_of: MakeBatch, source: str, sequences: Sequence[int]) -> list[UsageBatch]:
    return [
        batch_of(n, source=source, model=MODEL, accelerator=CHIP, end_epoch_ns=time.time_ns())
        for n in sequences
    ]


async def send(running: Running, batches: Sequence[UsageBatch]) -> None:
    """To one partition, so that its offsets are known."""
    producer = AIOKafkaProducer(**running.stack.settings.kafka_client(), enable_idempotence=True)
    await producer.start()
    try:
        for batch in batches:
            headers = encode_headers(USAGE_BATCH_TYPE, batch.source, str(batch.sequence), None)
            value = batch.model_dump_json().encode()
            await producer.send_and_wait(USAGE_BATCHES, value, headers=headers, partition=0)
    finally:
        await producer.stop()


async def check_counted(running: Running, batches: Sequence[UsageBatch]) -> None:
    expected = computed(batches)
    assert await settled(lambda: running.stored(MODEL), expected) == expected
    for seconds in (10, 60, 3600):
        read = lambda seconds=seconds: running.in_windows(MODEL, seconds)  # noqa: E731
        assert await settled(read, expected) == expected, seconds


async def test_a_topic_that_is_created_again_has_another_id(running: Running) -> None:
    settings, name = running.stack.settings, "usage.reconciliation.v1"
    before = await topic_ids(settings, [name, "no.such.topic"])
    assert list(before) == [name]
    await replace(running.stack.settings, name)
    assert (await topic_ids(settings, [name]))[name] != before[name]


async def test_usage_and_additions_that_are_created_again_are_counted_from_their_beginning(
    running: Running, batch_of: MakeBatch
) -> None:
    first = made(batch_of, "a/b/1/m_0", range(20))
    await send(running, first)
    await check_counted(running, first)

    # While the worker runs: the new topic is shorter than what was counted of the old one.
    running.said.clear()
    await replace(running.stack.settings, USAGE_BATCHES)
    second = made(batch_of, "a/b/1/m_0", range(20, 26))
    await send(running, [*first[10:15], *second])
    await check_counted(running, [*first, *second])
    await until(lambda: any("worker: ready again" in line for line in running.said), 60)

    # And as it is killed; longer than the one before.
    await replace(running.stack.settings, USAGE_BATCHES)
    running.stack.kill("worker")
    third = made(batch_of, "a/b/1/m_0", range(26, 60))
    await send(running, [*second, *third])
    counted = [*first, *second, *third]
    await check_counted(running, counted)

    # The additions, whose offsets order the rows in ClickHouse.
    await replace(running.stack.settings, ADDITIONS)
    fourth = made(batch_of, "a/b/1/m_0", range(60, 63))
    await send(running, fourth)
    counted += fourth
    await check_counted(running, counted)


async def test_a_worker_whose_ledgers_were_emptied_stops_and_says_what_to_do(
    running: Running, batch_of: MakeBatch
) -> None:
    """Nothing is counted twice, though nothing says any more what was counted."""
    before = await running.stored(MODEL)
    running.said.clear()
    await replace(running.stack.settings, LEDGERS)
    log = running.stack.settings.state_dir.parent / "logs" / "worker.log"
    await until(lambda: f"{LEDGERS}, partition 0, is empty" in log.read_text(), 60)
    assert "kafka-consumer-groups.sh --delete-offsets" in log.read_text()
    assert await running.stored(MODEL) == before

"""ClickHouse and Kafka are killed under real processes: what the log says, and that all goes on."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from metering.errors import MeteringError
from metering.usage import UsageBatch
from sinks.clickhouse.queries import ClickHouseReader
from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from streams.targets import clickhouse_target
from streams.topics import ADDITIONS, TOPICS
from streams.worker.app import APP_ID
from tests.waiting import until
from triton_models.emitter.log import UsageLog

pytestmark = [pytest.mark.stack, pytest.mark.timeout(280)]

SOURCE = "host_boot_1_tiny_0"
COUNT = "SELECT sum(requests) FROM cost_windows WHERE window_seconds = 86400"
LINE = re.compile(r"^\S+ \S+ (?P<level>[A-Z]+) (?P<logger>\S+) (?P<text>.*)$", re.MULTILINE)


class Host:
    """Appends a batch of one request every now and then."""

    def __init__(self, stack: Stack, make: Callable[..., UsageBatch]) -> None:
        self._log = UsageLog(stack.settings.log_dir / SOURCE, segment_bytes=64 * 1024)
        self._make = make
        self.appended = 0

    async def append(self) -> None:
        while True:
            sequence = self._log.reserve()
            batch = self._make(sequence, source=SOURCE, end_epoch_ns=time.time_ns())
            self._log.append(sequence, batch.model_dump_json().encode())
            self.appended += 1
            await asyncio.sleep(0.1)


def counted(stack: Stack) -> int:
    try:
        reader = ClickHouseReader(clickhouse_target(stack.settings))
        try:
            return int(str(reader.rows(COUNT)[0][0]))
        finally:
            reader.close()
    except MeteringError:
        return -1


async def unacknowledged(stack: Stack, ends: dict[TopicPartition, int]) -> int:
    consumer = AIOKafkaConsumer(
        **stack.settings.kafka_client(), group_id=APP_ID, enable_auto_commit=False
    )
    await consumer.start()
    try:
        consumer.assign(list(ends))
        return sum([max(0, end - (await consumer.committed(p) or 0)) for p, end in ends.items()])
    finally:
        await consumer.stop()


async def ends_of_additions(stack: Stack) -> dict[TopicPartition, int]:
    (topic,) = [topic for topic in TOPICS if topic.name == ADDITIONS]
    async with AIOKafkaConsumer(**stack.settings.kafka_client()) as consumer:
        found: dict[TopicPartition, int] = await consumer.end_offsets(
            [TopicPartition(ADDITIONS, n) for n in range(topic.partitions)]
        )
    return found


class Running:
    def __init__(self, stack: Stack, said: list[str], host: Host) -> None:
        self.stack = stack
        self.said = said
        self.host = host

    async def counts_all_that_was_appended(self) -> None:
        before = self.host.appended
        await until(lambda: asyncio.to_thread(lambda: counted(self.stack) >= before), 90)

    async def acknowledges_all_that_was_read(self) -> None:
        ends = await ends_of_additions(self.stack)
        await until(lambda: _none(unacknowledged(self.stack, ends)), 60)


@pytest.fixture(scope="module")
async def running(
    tmp_path_factory: pytest.TempPathFactory, batch_of: Callable[..., UsageBatch]
) -> AsyncIterator[Running]:
    said: list[str] = []
    config = StackConfig(tmp_path_factory.mktemp("outages") / "stack", preferred_ports=False)
    async with Stack(config, said.append, only=("shipper", "worker")) as stack:
        host = Host(stack, batch_of)
        appending = asyncio.create_task(host.append())
        running = Running(stack, said, host)
        await until(lambda: host.appended >= 20)
        await running.counts_all_that_was_appended()
        await running.acknowledges_all_that_was_read()
        yield running
        appending.cancel()


async def test_what_was_read_before_a_transaction_is_lost_is_acknowledged_after_it(
    running: Running,
) -> None:
    for n in range(next(t.partitions for t in TOPICS if t.name == ADDITIONS)):
        own = running.stack.settings.kafka_client()
        taker = AIOKafkaProducer(**own, transactional_id=f"{APP_ID}/{ADDITIONS}/{n}")
        await taker.start()  # as another worker does that takes the partition over
        await taker.stop()
    await running.counts_all_that_was_appended()
    await running.acknowledges_all_that_was_read()


async def test_an_outage_is_told_of_once_and_all_goes_on_after_it(running: Running) -> None:
    stack, said = running.stack, running.said
    log = stack.endpoints.folder / "logs" / "worker.log"
    begins = log.stat().st_size
    for name in ("clickhouse", "kafka"):
        said.clear()
        stack.kill(name)
        await until(lambda n=name: any(f"{n}: ready again" in line for line in said), 90)
        await running.counts_all_that_was_appended()
    await running.acknowledges_all_that_was_read()
    assert stack.restarts["worker"] == 0
    lines = [m.groupdict() for m in LINE.finditer(log.read_bytes()[begins:].decode())]
    loggers = {line["logger"].partition(".")[0] for line in lines if line["level"] != "INFO"}
    assert loggers.isdisjoint({"urllib3", "clickhouse_connect", "mode"}), loggers
    texts = [line["text"] for line in lines if line["logger"] == "sinks.outages"]
    for name in ("ClickHouse", "Kafka"):
        own = [text for text in texts if text.startswith(name)]
        assert ["answers again" in text for text in own] == [False, True], own


async def _none(count: Awaitable[int]) -> bool:
    return await count == 0

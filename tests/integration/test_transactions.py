"""What an owner of a partition sends, on the real Kafka: whole or not at all, and it alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from metering.errors import MeteringError, SinkUnavailable
from streams.partitioner import partition_of
from streams.publisher import PRODUCER, Record
from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from streams.topics import COST_REQUESTS, COST_WINDOWS, LEDGERS, TOPICS
from streams.worker.transaction import Lost, Transactions

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

STATE = TopicPartition(LEDGERS, 0)
TENANTS = [f"tenant-{n}".encode() for n in range(9)]


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("transactions")
    async with Stack(StackConfig(folder, preferred_ports=False), only=("topics",)) as stack:
        yield stack


def owner(stack: Stack, name: str) -> Transactions:
    return Transactions(stack.settings, name, STATE, (COST_REQUESTS, COST_WINDOWS))


async def committed(stack: Stack, topic: str, key: bytes) -> list[bytes]:
    """The values of a key in the order in which a reader of what is committed gets them, all from
    the partition that the key belongs to."""
    partitions = range(next(t.partitions for t in TOPICS if t.name == topic))
    where = TopicPartition(topic, partition_of(key, partitions, partitions))
    async with reader(stack, "read_uncommitted") as every:
        end = (await every.end_offsets([where]))[where]
    found: list[bytes] = []
    async with reader(stack, "read_committed") as consumer:
        consumer.assign([where])
        while await consumer.position(where) < end:
            for message in (await consumer.getmany(where, timeout_ms=500)).get(where, []):
                if message.key == key:
                    found.append(message.value)
    return found


def reader(stack: Stack, level: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        **stack.settings.kafka_client(),
        enable_auto_commit=False,
        isolation_level=level,
        auto_offset_reset="earliest",
    )


async def test_all_records_come_in_order_whatever_their_size(stack: Stack) -> None:
    large = PRODUCER["max_batch_size"]
    sizes = [1, 1, large // 3, large // 3, large // 2, 10, large + 1, 10, 2 * large, *[100] * 500]
    sent = {
        tenant: [b"%d/%d " % (n, size) + b"x" * size for n, size in enumerate(sizes)]
        for tenant in TENANTS[:3]
    }
    records = [
        Record(COST_REQUESTS, tenant, values[n], [("n", b"%d" % n)])
        for n in range(len(sizes))
        for tenant, values in sent.items()
    ]
    own = owner(stack, "sizes")
    await own.start()
    try:
        await own.commit([*records, Record(LEDGERS, b"ledger", b"1", [], 0)])
    finally:
        await own.stop()
    for tenant, values in sent.items():
        assert await committed(stack, COST_REQUESTS, tenant) == values


async def test_who_was_replaced_sends_nothing_any_more(stack: Stack) -> None:
    key = b"replaced"
    before, after = owner(stack, "owned"), owner(stack, "owned")
    await before.start()
    await before.commit([Record(COST_REQUESTS, key, b"first", [])])
    await after.start()
    try:
        with pytest.raises(Lost):
            await before.commit([Record(COST_REQUESTS, key, b"too late", [])])
        with pytest.raises(Lost, match="has ended"):
            await before.commit([Record(COST_REQUESTS, key, b"later still", [])])
        await after.commit([Record(COST_REQUESTS, key, b"second", [])])
    finally:
        await before.stop()
        await after.stop()
    assert await committed(stack, COST_REQUESTS, key) == [b"first", b"second"]


async def test_no_transaction_is_open_where_the_records_can_not_be_made(stack: Stack) -> None:
    def records() -> Iterator[Record]:
        yield Record(COST_REQUESTS, key, b"never", [])
        raise MeteringError("unmade")

    key = b"unmade"
    own = owner(stack, "unmade")
    await own.start()
    with pytest.raises(MeteringError, match="unmade"):
        await own.commit(records())
    other = owner(stack, "another")
    await other.start()
    try:
        await other.commit([Record(COST_REQUESTS, key, b"once", [])])
        assert await committed(stack, COST_REQUESTS, key) == [b"once"]
    finally:
        await other.stop()


async def test_a_transaction_that_is_under_way_ends_before_its_owner_does(stack: Stack) -> None:
    key = b"under way"
    own = owner(stack, "under way")
    await own.start()
    committing = asyncio.create_task(own.commit([Record(COST_REQUESTS, key, b"once", [])]))
    await asyncio.sleep(0)
    await own.stop()
    await committing
    assert await committed(stack, COST_REQUESTS, key) == [b"once"]
    with pytest.raises(Lost, match="has ended"):
        await own.commit([Record(COST_REQUESTS, key, b"too late", [])])


async def test_an_owner_does_not_begin_behind_a_transaction_that_does_not_end(
    stack: Stack,
) -> None:
    """One of somebody else's here, which it can't end; its own it ends by beginning anew."""
    other = AIOKafkaProducer(**stack.settings.kafka_client(), transactional_id="somebody else")
    await other.start()
    try:
        await other.begin_transaction()
        await other.send_and_wait(STATE.topic, value=None, key=b"-", partition=STATE.partition)
        own = owner(stack, "behind")
        with pytest.raises(SinkUnavailable, match="does not end"):
            await own.start()
        await other.abort_transaction()
        await own.start()
        await own.stop()
    finally:
        await other.stop()

"""From the usage log to ClickHouse through the real processes, undisturbed and under kill -9.

The price is such that a nanosecond costs exactly 1e-12 USD, so that what must come out is computed
here by one multiplication, and not by the code that is tested.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from metering.cloudevents import USAGE_BATCH_TYPE
from metering.errors import MeteringError
from metering.finishing import usage_of_payload
from metering.usage import UsageBatch
from sinks.clickhouse.queries import ClickHouseReader
from streams.kafka_admin import kafka_admin
from streams.publisher import MAX_REQUEST_BYTES
from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from streams.targets import clickhouse_target
from streams.topics import TOPICS, USAGE_BATCHES, USAGE_DLQ
from streams.worker.reread import MOST_MESSAGES, read_stretch
from tests.waiting import until
from triton_models.emitter.log import UsageLog

pytestmark = pytest.mark.stack

MakeBatch = Callable[..., UsageBatch]
Totals = dict[tuple[str, str], tuple[int, int, int, int, Decimal]]
"""(tenant, model) → requests, input tokens, output tokens, GPU ns, USD."""

CHIP = "a chip of the tests"
USD_PER_NS = Decimal("1e-12")
PRICES = f"""
[[gpu_hour]]
id = "exact"
accelerator = "{CHIP}"
region = "*"
usd_per_gpu_hour = "3.60"
effective_from = 2020-01-01T00:00:00Z
"""
KAFKAS_MAX_MESSAGE_BYTES = 1_048_588
RECORD_OVERHEAD_BYTES = 88
"""The frame of a batch of one record, so that the broker takes it to the last byte."""
_TOTALS = (
    "SELECT tenant, model, {count}, sum(input_tokens), sum(output_tokens), sum(gpu_ns), "
    "sum(cost_usd) FROM {view} WHERE startsWith(model, {{prefix:String}}) {more} "
    "GROUP BY tenant, model"
)


class Running:
    """The processes, what they said, and what is asked of them."""

    def __init__(self, stack: Stack, said: list[str]) -> None:
        self.stack = stack
        self.said = said

    def emitter(self, source: str) -> Emitter:
        return Emitter(self.stack.settings.log_dir, source)

    async def kill(self, name: str) -> None:
        """kill -9; returns when the process that follows is ready."""
        self.said.clear()
        self.stack.kill(name)
        await until(lambda: any(f"{name}: ready again" in line for line in self.said), 90)

    async def ask(self, sql: str, prefix: str) -> list[tuple[object, ...]]:
        return await asyncio.to_thread(self._ask, sql, prefix)

    def _ask(self, sql: str, prefix: str) -> list[tuple[object, ...]]:
        reader = ClickHouseReader(clickhouse_target(self.stack.settings))
        try:
            return reader.rows(sql, {"prefix": prefix})
        finally:
            reader.close()

    async def stored(self, prefix: str) -> Totals:
        return await self._totals(prefix, "count()", "cost_requests", "")

    async def in_windows(self, prefix: str, seconds: int, *, final: bool = False) -> Totals:
        more = f"AND window_seconds = {seconds}" + (" AND final" if final else "")
        return await self._totals(prefix, "sum(requests)", "cost_windows", more)

    async def _totals(self, prefix: str, count: str, view: str, more: str) -> Totals:
        rows = await self.ask(_TOTALS.format(count=count, view=view, more=more), prefix)
        return {(str(row[0]), str(row[1])): row[2:] for row in rows}  # type: ignore[misc]  # five numbers

    async def metric(self, name: str) -> float:
        """The worker's; 0 where it has no such sample yet."""
        url = self.stack.endpoints.metrics["worker"]
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            found = re.search(rf"^{re.escape(name)} (\S+)$", await answer.text(), re.MULTILINE)
        return 0.0 if found is None else float(found.group(1))

    async def letters(self) -> list[tuple[bytes, dict[str, bytes | None]]]:
        """Value and headers of everything in the dead-letter topic."""
        consumer = AIOKafkaConsumer(
            **self.stack.settings.kafka_client(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            partition = TopicPartition(USAGE_DLQ, 0)
            consumer.assign([partition])
            end = (await consumer.end_offsets([partition]))[partition]
            found = []
            while await consumer.position(partition) < end:
                records = await asyncio.wait_for(consumer.getmany(partition, timeout_ms=200), 20)
                for message in records.get(partition, []):
                    found.append((message.value or b"", dict(message.headers)))
            return found
        finally:
            await consumer.stop()

    async def produce(
        self, messages: Iterable[tuple[bytes | None, list[tuple[str, bytes | None]]]]
    ) -> None:
        """Straight into the usage topic, past the log and the shipper."""
        producer = AIOKafkaProducer(
            **self.stack.settings.kafka_client(),
            enable_idempotence=True,
            max_request_size=MAX_REQUEST_BYTES,
        )
        await producer.start()
        try:
            for value, headers in messages:
                await producer.send_and_wait(
                    USAGE_BATCHES, value, key=_source(value), headers=headers
                )
        finally:
            await producer.stop()


def _source(value: bytes | None) -> bytes:
    """The key under which the shipper sends it; where it has no source, any."""
    try:
        document = json.loads(value or b"")
        return str(document["source"]).encode()
    except (ValueError, TypeError, KeyError):
        return b"k"


class Emitter:
    """What Triton's side does: a batch is in the log, and remembered here."""

    def __init__(self, log_dir: Path, source: str) -> None:
        self._log = UsageLog(log_dir / source, segment_bytes=64 * 1024)
        self.source = source
        self.appended: list[UsageBatch] = []

    def append(self, make: MakeBatch, **changes: object) -> UsageBatch:
        sequence = self._log.reserve()
        values = {
            "source": self.source,
            "accelerator": CHIP,
            "end_epoch_ns": time.time_ns(),
            **changes,
        }
        batch = make(sequence, **values)
        self._log.append(sequence, batch.model_dump_json().encode())
        self.appended.append(batch)
        return batch


def computed(batches: Iterable[UsageBatch]) -> Totals:
    """What must be in ClickHouse, from what was appended alone."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for batch in batches:
        for request in batch.requests:
            own = sums[request.tenant, batch.model]
            own[0] += 1
            own[1] += request.input_tokens
            own[2] += request.output_tokens
            own[3] += request.gpu_ns
    return {k: (n, i, o, ns, ns * USD_PER_NS) for k, (n, i, o, ns) in sums.items()}


async def settled(read: Callable[[], Awaitable[Totals]], expected: Totals) -> Totals:
    """What is read once it is what was expected, or what it still is when time is up."""
    deadline = time.monotonic() + 240
    while True:
        try:
            found = await read()
        except MeteringError:
            found = {}
        if found == expected or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.2)


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder = tmp_path_factory.mktemp("stream")
    (folder / "book.toml").write_text(PRICES)
    config = StackConfig(folder / "stack", price_book=folder / "book.toml", preferred_ports=False)
    said: list[str] = []
    async with Stack(config, said.append, only=("shipper", "worker")) as stack:
        yield Running(stack, said)


async def test_what_is_in_the_log_arrives_once_with_its_exact_cost(
    running: Running, batch_of: MakeBatch
) -> None:
    drawn = random.Random(7)
    emitters = [running.emitter(f"host/boot/{pid}/arrives_0") for pid in (1, 2)]
    for n in range(200):
        emitters[n % 2].append(
            batch_of,
            model=f"arrives-{n % 3}",
            gpu_ns=drawn.randrange(1, 10**10),
            requests=[
                {"tenant": drawn.choice(["acme", "größer", "x' OR 1"]), "input_tokens": n}
                for _ in range(drawn.randrange(1, 6))
            ],
        )
    unpriced = emitters[0].append(batch_of, model="arrives-unpriced", accelerator="unheard of")
    appended = [b for e in emitters for b in e.appended]
    priced = [b for b in appended if b is not unpriced]
    expected = computed(priced)
    assert await settled(lambda: running.stored("arrives-0"), _of(expected, "arrives-0")) != {}
    found = await settled(
        lambda: _without(running.stored("arrives-"), "arrives-unpriced"), expected
    )
    assert found == expected

    lines = await running.ask(
        "SELECT source, sequence, position, gpu_ns, cost_usd, input_cost_usd + output_cost_usd "
        "FROM cost_requests WHERE startsWith(model, {prefix:String}) AND cost_usd IS NOT NULL",
        "arrives-",
    )
    assert {row[:5] for row in lines} == {
        (b.source, b.sequence, position, r.gpu_ns, r.gpu_ns * USD_PER_NS)
        for b in priced
        for position, r in enumerate(b.requests)
    }
    assert all(row[4] == row[5] for row in lines)
    assert await running.ask(
        "SELECT pricing_status, cost_usd FROM cost_requests WHERE model = {prefix:String}",
        "arrives-unpriced",
    ) == [("unpriced", None)]


def _of(totals: Totals, model: str) -> Totals:
    return {key: value for key, value in totals.items() if key[1] == model}


async def _without(totals: Awaitable[Totals], model: str) -> Totals:
    return {key: value for key, value in (await totals).items() if key[1] != model}


async def test_no_kill_of_any_process_in_the_midst_of_the_flow_changes_a_total(
    running: Running, batch_of: MakeBatch
) -> None:
    drawn = random.Random(11)
    emitters = [running.emitter(f"host/boot/{pid}/killed_0") for pid in (1, 2, 3)]

    async def flow() -> None:
        while True:
            for emitter in emitters:
                emitter.append(
                    batch_of,
                    model=f"killed-{drawn.randrange(2)}",
                    gpu_ns=drawn.randrange(1, 10**9),
                    requests=[{"tenant": f"t{drawn.randrange(3)}"} for _ in range(3)],
                )
            await asyncio.sleep(0.02)

    flowing = asyncio.create_task(flow())
    try:
        for name in ("worker", "shipper", "clickhouse", "kafka"):
            before = sum(len(e.appended) for e in emitters)
            await asyncio.sleep(1.0)
            await running.kill(name)
            assert sum(len(e.appended) for e in emitters) > before + 50
            assert not flowing.done()
        await asyncio.sleep(1.0)
    finally:
        flowing.cancel()
        await asyncio.gather(flowing, return_exceptions=True)
    restarts = running.stack.restarts
    assert all(restarts[name] >= 1 for name in ("worker", "shipper", "clickhouse", "kafka"))

    expected = computed(b for e in emitters for b in e.appended)
    assert await settled(lambda: running.stored("killed-"), expected) == expected
    final = await settled(lambda: running.in_windows("killed-", 10, final=True), expected)
    assert final == expected
    assert await running.in_windows("killed-", 60) == expected
    assert await running.letters() == []


async def test_duplicates_are_dropped_and_what_can_not_be_read_is_kept_apart_with_its_reason(
    running: Running, batch_of: MakeBatch
) -> None:
    emitter = running.emitter("host/boot/1/refused_0")
    first = emitter.append(batch_of, model="refused-0", requests=[{}, {"tenant": "b"}])
    expected = computed([first])
    assert await settled(lambda: running.stored("refused-"), expected) == expected
    duplicates = await running.metric("meter_duplicate_batches_total")

    def raw(sequence: int, **changes: object) -> bytes:
        values = {"source": "elsewhere", "accelerator": CHIP, "end_epoch_ns": time.time_ns()}
        made = batch_of(sequence, model="refused-0", **{**values, **changes})
        return made.model_dump_json().encode()

    sound = [raw(n) for n in range(3)]
    again = first.model_dump_json().encode()
    ahead = raw(9, end_epoch_ns=time.time_ns() + 10**12)
    not_conserved = raw(8).replace(b'"batch_size":1', b'"batch_size":2')
    refused: dict[bytes, bytes] = {
        b"\x00\xff{": b"malformed",
        b"": b"malformed",
        b"[]": b"invalid",
        not_conserved: b"invalid",
        sound[0] + b" ": b"wrong-type",
        ahead: b"from-the-future",
    }
    await running.produce(
        [
            (sound[0], []),
            (again, []),
            (b"\x00\xff{", [("ce_id", b"7"), ("trace", b"\xfe"), ("nothing", None)]),
            (None, []),
            (again, [("ce_type", b"inference-meter.usage.batch.v1")]),
            (b"[]", []),
            (sound[1], [("nothing", None)]),
            (not_conserved, []),
            (sound[0] + b" ", [("ce_type", b"something.else")]),
            (ahead, []),
            (sound[2], []),
            (sound[2], []),
        ]
    )
    expected = computed([first, *(UsageBatch.model_validate_json(value) for value in sound)])
    assert await settled(lambda: running.stored("refused-"), expected) == expected
    await until(lambda: _at_least(running.letters(), len(refused)))
    letters = await running.letters()
    assert {value: headers["meter_reason"] for value, headers in letters} == refused
    assert len(letters) == len(refused)
    assert all(headers["meter_detail"] for _, headers in letters)
    original = dict(letters)[b"\x00\xff{"]
    assert (original["original_ce_id"], original["original_trace"]) == (b"7", b"\xfe")
    assert await running.metric("meter_duplicate_batches_total") == duplicates + 3
    assert await running.metric('meter_refused_messages_total{reason="invalid"}') == 2
    final = await settled(lambda: running.in_windows("refused-", 10, final=True), expected)
    assert final == expected


async def _at_least(found: Awaitable[list[tuple[bytes, dict[str, bytes | None]]]], n: int) -> bool:
    return len(await found) >= n


async def test_a_stretch_of_the_topic_is_read_whole_and_what_is_deleted_is_passed(
    running: Running,
) -> None:
    """This is how the worker gets what Faust has passed over when it recovered."""
    settings = running.stack.settings
    partition = TopicPartition(USAGE_BATCHES, 0)
    consumer = AIOKafkaConsumer(**settings.kafka_client(), enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
    finally:
        await consumer.stop()
    first = end - MOST_MESSAGES - 10
    assert first >= 0
    messages, go_on = await read_stretch(settings, USAGE_BATCHES, 0, first, end)
    assert [m.offset for m in messages] == list(range(first, first + MOST_MESSAGES))
    assert go_on == first + MOST_MESSAGES
    assert abs(messages[0].appended_ns - time.time_ns()) < 600 * 10**9
    assert usage_of_payload(messages[0].value).accelerator == CHIP
    assert dict(messages[0].headers)["ce_type"] == USAGE_BATCH_TYPE.encode()
    messages, go_on = await read_stretch(settings, USAGE_BATCHES, 0, end - 3, end - 1)
    assert ([m.offset for m in messages], go_on) == ([end - 3, end - 2], end - 1)
    assert await read_stretch(settings, USAGE_BATCHES, 0, end, end + 5) == ([], end + 5)

    async with kafka_admin(settings) as admin:
        await admin.delete_records({partition: RecordsToDelete(before_offset=5)})
    assert await read_stretch(settings, USAGE_BATCHES, 0, 0, 3) == ([], 3)
    messages, go_on = await read_stretch(settings, USAGE_BATCHES, 0, 0, 8)
    assert ([m.offset for m in messages], go_on) == ([5, 6, 7], 8)


async def test_a_message_as_large_as_kafka_takes_is_refused_without_holding_up_the_next(
    running: Running, batch_of: MakeBatch
) -> None:
    """The letter is larger than the message, for it has the reason too."""
    (topic,) = [topic for topic in TOPICS if topic.name == USAGE_BATCHES]
    largest_bytes = int(topic.configs.get("max.message.bytes", KAFKAS_MAX_MESSAGE_BYTES))
    large = random.Random(3).randbytes(largest_bytes - RECORD_OVERHEAD_BYTES)
    emitter = running.emitter("host/boot/1/large_0")
    await running.produce([(large, [])])
    expected = computed([emitter.append(batch_of, model="large-0")])
    assert await settled(lambda: running.in_windows("large-", 10), expected) == expected
    letters = await running.letters()
    assert [h["meter_reason"] for value, h in letters if value == large] == [b"malformed"]


async def test_a_ledger_of_thousands_of_cohorts_is_saved_and_found_again_after_a_kill(
    running: Running, batch_of: MakeBatch
) -> None:
    """Compressed it is more than the megabyte that Kafka's clients and brokers take by default."""
    drawn = random.Random(5)
    emitter = running.emitter("host/boot/1/many_0")
    for _ in range(12):
        tenants = [drawn.randbytes(120).hex() for _ in range(500)]
        requests = [{"tenant": tenant} for tenant in tenants]
        emitter.append(batch_of, model="many-0", gpu_ns=10**7, requests=requests)
    expected = computed(emitter.appended)
    assert await settled(lambda: running.in_windows("many-", 10), expected) == expected
    await running.kill("worker")
    await running.produce([(b.model_dump_json().encode(), []) for b in emitter.appended])
    emitter.append(batch_of, model="many-0", gpu_ns=10**7)
    expected = computed(emitter.appended)
    assert await settled(lambda: running.stored("many-"), expected) == expected
    assert await settled(lambda: running.in_windows("many-", 10), expected) == expected
    assert await running.metric("meter_duplicate_batches_total") == 12

"""``meter topics apply`` against the real Kafka."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.kafka_admin import kafka_admin
from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from streams.stack.topics_admin import ensure_topics
from streams.topics import (
    COST_ANOMALIES,
    COST_REQUESTS,
    COST_WINDOWS,
    LARGEST_FRAME_BYTES,
    LEDGERS,
    TOPICS,
    USAGE_BATCHES,
)

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


@pytest.fixture
async def kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("topics")
    async with Stack(StackConfig(folder, preferred_ports=False), only=("kafka",)) as stack:
        yield stack


def apply(stack: Stack, *options: str) -> tuple[int, dict[str, str]]:
    """The exit code, and what was said of each topic."""
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli", "topics", "apply", *options],
        env=os.environ | {"METER_KAFKA": stack.settings.kafka},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1), done.stderr
    lines = done.stdout.splitlines()
    return done.returncode, dict(line.split(": ", 1) for line in lines)  # type: ignore[misc]


async def configs_of(stack: Stack, name: str) -> dict[str, str]:
    async with kafka_admin(stack.settings) as admin:
        resource = ConfigResource(ConfigResourceType.TOPIC, name)
        (answer,) = await admin.describe_configs([resource])
        return {entry[0]: entry[1] for entry in answer.resources[0][4]}


async def partitions_of(stack: Stack) -> dict[str, int]:
    async with kafka_admin(stack.settings) as admin:
        return {t["topic"]: len(t["partitions"]) for t in await admin.describe_topics()}


async def test_topics_are_made_checked_and_altered_and_what_others_have_set_stays(
    kafka: Stack,
) -> None:
    code, said = apply(kafka, "--check")
    assert code == 1
    assert set(said) == {topic.name for topic in TOPICS}
    assert all(text.startswith("would be created, ") for text in said.values())
    assert await partitions_of(kafka) == {}

    await make_by_hand(kafka)
    code, said = apply(kafka, "--dry-run", "--partitions", f"{COST_REQUESTS}=6")
    assert code == 0
    assert (
        said[COST_REQUESTS] == "would be altered partitions: 2 → 6, retention.ms: 5000 → 604800000"
    )
    assert (await partitions_of(kafka))[COST_REQUESTS] == 2

    code, said = apply(kafka, "--only-missing")
    assert code == 0
    assert said[COST_REQUESTS] == "as it should be"
    assert said[COST_WINDOWS].startswith("created, partitions=1, cleanup.policy=compact,delete")
    assert (await configs_of(kafka, COST_REQUESTS))["retention.ms"] == "5000"

    code, said = apply(kafka, "--partitions", f"{COST_REQUESTS}=6")
    assert code == 0
    assert said[COST_REQUESTS] == "altered partitions: 2 → 6, retention.ms: 5000 → 604800000"
    assert said[COST_ANOMALIES] == "as it should be"
    assert said[COST_WINDOWS] == "as it should be"
    found = await configs_of(kafka, COST_REQUESTS)
    assert (found["retention.ms"], found["segment.ms"]) == ("604800000", "777777777")
    assert (await partitions_of(kafka))[COST_REQUESTS] == 6
    assert await read(kafka, COST_REQUESTS, 2) == [b"0", b"1"]

    code, said = apply(kafka, "--check")
    assert (code, set(said.values())) == (0, {"as it should be"}), "6 partitions are more than ours"
    code, said = apply(kafka, "--check", "--replication-factor", "3")
    assert code == 1
    assert "replicas: 1, not 3" in said[COST_WINDOWS]
    await ensure_topics(kafka.settings, alter=True)  # as a start does it: nothing is left to do


async def make_by_hand(stack: Stack) -> None:
    """A topic with another's settings, of which one is not the project's, and with data."""
    as_ours = {"max.message.bytes": str(LARGEST_FRAME_BYTES)}
    own = {"retention.ms": "5000", "segment.ms": "777777777", **as_ours}
    async with kafka_admin(stack.settings) as admin:
        await admin.create_topics([NewTopic(COST_REQUESTS, 2, 1, topic_configs=own)])
    producer = AIOKafkaProducer(**stack.settings.kafka_client())
    await producer.start()
    try:
        for partition in (0, 1):
            value = str(partition).encode()
            await producer.send_and_wait(COST_REQUESTS, value, key=b"k", partition=partition)
    finally:
        await producer.stop()


async def read(stack: Stack, topic: str, partitions: int) -> list[bytes | None]:
    consumer = AIOKafkaConsumer(**stack.settings.kafka_client(), auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, n) for n in range(partitions)])
        return sorted([(await consumer.getone()).value for _ in range(partitions)])
    finally:
        await consumer.stop()


def test_what_can_not_be_done_is_a_usage_error_before_anything_is_asked() -> None:
    for options, said in (
        (("--partitions", "cost.requests.v1"), "TOPIC=N is wanted"),
        (("--partitions", f"{COST_WINDOWS}=2"), "its reader must see everything"),
    ):
        command = [sys.executable, "-m", "streams.cli", "topics", "apply", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode != 0
        assert said in done.stderr


def test_json_says_the_same_to_machines(kafka: Stack) -> None:
    command = [sys.executable, "-m", "streams.cli", "topics", "apply", "--json"]
    environment = os.environ | {"METER_KAFKA": kafka.settings.kafka}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300, check=True)
    assert [row["topic"] for row in json.loads(done.stdout) if row["created"]] == [
        topic.name for topic in TOPICS
    ]


async def test_a_stack_may_have_other_counts_and_what_follows_a_topic_has_as_many(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    config = StackConfig(
        tmp_path_factory.mktemp("counts"), preferred_ports=False, partitions={USAGE_BATCHES: 6}
    )
    async with Stack(config, only=("topics",)) as stack:
        found = await partitions_of(stack)
    usual = {topic.name: topic.partitions for topic in TOPICS}
    assert found == usual | {USAGE_BATCHES: 6, LEDGERS: 6}

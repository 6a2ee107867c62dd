"""Where a reader of one partition begins, also in a topic that was deleted and created again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import OffsetAndMetadata

from streams import group_place
from streams.group_place import GroupPlace
from streams.settings import Settings
from streams.topic_ids import NO_ID, TopicReplaced

WHERE = TopicPartition("cost.windows.v1", 0)


class Kafka:
    """One topic and what one group has committed."""

    def __init__(self) -> None:
        self.topic_id: str | None = "old"
        self.committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self.away = False

    async def topic_ids(self, _: Settings, names: list[str]) -> dict[str, str]:
        if self.away:
            raise KafkaConnectionError("away")
        return {} if self.topic_id is None else dict.fromkeys(names, self.topic_id)

    @asynccontextmanager
    async def admin(self, _: Settings) -> AsyncIterator[Any]:
        async def offsets(_group: str, partitions: object) -> dict[Any, Any]:
            return self.committed

        yield SimpleNamespace(list_consumer_group_offsets=offsets)


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    kafka = Kafka()
    monkeypatch.setattr(group_place, "topic_ids", kafka.topic_ids)
    monkeypatch.setattr(group_place, "kafka_admin", kafka.admin)
    monkeypatch.setattr(group_place, "CHECK_S", -1.0)
    return kafka


def place() -> GroupPlace:
    return GroupPlace(Settings(), "group", WHERE)


async def test_it_goes_on_where_it_has_committed(kafka: Kafka) -> None:
    first = place()
    assert await first.find(100) is None
    kafka.committed = first.at(42)
    assert kafka.committed[WHERE].metadata == "old"
    assert await place().find(100) == 42


@pytest.mark.parametrize("end", [0, 42, 100])
async def test_what_was_committed_of_the_topic_before_says_nothing(kafka: Kafka, end: int) -> None:
    first = place()
    await first.find(100)
    kafka.committed = first.at(42)
    kafka.topic_id = "new"
    again = place()
    assert await again.find(end) is None
    assert again.at(7)[WHERE].metadata == "new"


@pytest.mark.parametrize(("end", "found"), [(100, 42), (42, 42), (41, None), (0, None)])
async def test_a_commit_that_names_no_topic_holds_unless_the_topic_ends_before_it(
    kafka: Kafka, end: int, found: int | None
) -> None:
    """As the version before committed."""
    kafka.committed = {WHERE: OffsetAndMetadata(42, "")}
    assert await place().find(end) == found


async def test_a_topic_that_is_replaced_while_it_is_read_is_named_with_both_ids(
    kafka: Kafka,
) -> None:
    reader = place()
    await reader.find(0)
    await reader.check()
    kafka.topic_id = None  # deleted, and not yet there again
    await reader.check()
    kafka.away = True
    await reader.check()
    kafka.away, kafka.topic_id = False, "new"
    with pytest.raises(TopicReplaced, match=r"cost\.windows\.v1 .* its id was old, and is new"):
        await reader.check()


@pytest.mark.parametrize("topic_id", [None, NO_ID])
async def test_where_kafka_gives_no_id_the_commit_holds(kafka: Kafka, topic_id: str | None) -> None:
    kafka.topic_id = topic_id
    kafka.committed = {WHERE: OffsetAndMetadata(42, "old")}
    reader = place()
    assert await reader.find(100) == 42
    kafka.topic_id = "new"
    await reader.check()

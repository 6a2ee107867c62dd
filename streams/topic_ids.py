"""The ids that Kafka gives its topics: a topic that is deleted and created again has another one.

aiokafka asks for metadata in a version that has none, so the request stands here, in version 10 of
Kafka's protocol guide (brokers since 2.8).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from io import BytesIO
from typing import Any

from aiokafka.errors import for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from metering.errors import MeteringError
from streams.kafka_admin import kafka_admin
from streams.settings import Settings

NO_ID = str(uuid.UUID(int=0))
"""A cluster that gives none: it was begun before Kafka 2.8, and is not upgraded."""
_NOT_THERE = (3, 5)
"""Unknown, or without a leader as yet."""


class TopicReplaced(MeteringError):
    """A topic was deleted and created again while it was read; the message names both ids."""

    def __init__(self, topic: str, before: str, now: str) -> None:
        super().__init__(
            f"topic {topic} was deleted and created again: its id was {before}, and is {now}"
        )


class _Uuid(AbstractType[str]):  # type: ignore[misc]  # aiokafka is not typed
    @classmethod
    def encode(cls, value: str) -> bytes:
        return uuid.UUID(value).bytes

    @classmethod
    def decode(cls, data: BytesIO) -> str:
        return str(uuid.UUID(bytes=data.read(16)))

    @classmethod
    def repr(cls, value: str) -> str:
        return value


_PARTITION = (
    ("error_code", Int16),
    ("partition", Int32),
    ("leader", Int32),
    ("leader_epoch", Int32),
    ("replicas", CompactArray(Int32)),
    ("isr", CompactArray(Int32)),
    ("offline_replicas", CompactArray(Int32)),
    ("tags", TaggedFields),
)
_TOPIC = (
    ("error_code", Int16),
    ("topic", CompactString("utf-8")),
    ("topic_id", _Uuid),
    ("is_internal", Boolean),
    ("partitions", CompactArray(*_PARTITION)),
    ("authorized_operations", Int32),
    ("tags", TaggedFields),
)


class _Response_v10(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        ("topics", CompactArray(*_TOPIC)),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _Request_v10(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Response_v10
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)
            ),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _Metadata(Request[_Request_v10]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, names: Iterable[str]) -> None:
        self._names = names

    def build(self, request_struct_class: Any) -> Any:
        asked: list[tuple[str, str, dict[int, bytes]]] = [(NO_ID, name, {}) for name in self._names]
        return request_struct_class(asked, False, False, False, {})


async def topic_ids(settings: Settings, names: Iterable[str]) -> dict[str, str]:
    """The id of each topic that is there. Asking creates none.

    Raises:
        KafkaError: no broker answers, or one refuses to say.
    """
    names = list(names)
    async with kafka_admin(settings) as admin:
        try:
            answer = await admin._send_request(_Metadata(names))
        except NotImplementedError:  # aiokafka's, of a broker before 2.8
            return dict.fromkeys(names, NO_ID)
    found = {}
    for code, name, topic_id, *_ in answer.topics:
        if code == 0:
            found[name] = topic_id
        elif code not in _NOT_THERE:
            raise for_code(code)(f"topic {name}")
    return found

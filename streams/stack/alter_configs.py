"""Kafka's IncrementalAlterConfigs, which aiokafka does not have.

Its ``alter_configs`` sends AlterConfigs, by which every config that is not named goes back to its
default: what an operator has set would be lost. This one changes what is named and nothing else.
The layout is that of version 0 in Kafka's protocol guide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int8, Int16, Int32, Schema, String

_TOPIC, _SET = 2, 0
_RESULT = ("error_code", Int16), ("error_message", String("utf-8"))
_RESOURCE = ("resource_type", Int8), ("resource_name", String("utf-8"))


class _Response_v0(Response):  # type: ignore[misc]  # aiokafka is not typed
    API_KEY = 44
    API_VERSION = 0
    SCHEMA = Schema(("throttle_time_ms", Int32), ("responses", Array(*_RESULT, *_RESOURCE)))


class _Request_v0(RequestStruct):  # type: ignore[misc]
    API_KEY = 44
    API_VERSION = 0
    RESPONSE_TYPE = _Response_v0
    SCHEMA = Schema(
        (
            "resources",
            Array(
                *_RESOURCE,
                (
                    "configs",
                    Array(
                        ("name", String("utf-8")),
                        ("config_operation", Int8),
                        ("value", String("utf-8")),
                    ),
                ),
            ),
        ),
        ("validate_only", Boolean),
    )


class _IncrementalAlterConfigs(Request[_Request_v0]):  # type: ignore[misc]
    API_KEY = 44

    def __init__(self, resources: list[tuple[int, str, list[tuple[str, int, str]]]]) -> None:
        self._resources = resources

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(self._resources, False)


async def set_topic_configs(
    admin: AIOKafkaAdminClient, configs: Mapping[str, Mapping[str, str]]
) -> None:
    """Set configs by topic; each topic's are set together or not at all.

    Raises:
        KafkaError: the cluster refused one topic's; those of others may be set.
    """
    resources = [
        (_TOPIC, topic, [(name, _SET, value) for name, value in own.items()])
        for topic, own in configs.items()
    ]
    answer = await admin._send_request(_IncrementalAlterConfigs(resources))
    for code, message, _, topic in answer.responses:
        if code != 0:
            raise for_code(code)(f"topic {topic}: {message}")

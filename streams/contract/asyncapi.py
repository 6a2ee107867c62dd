"""The AsyncAPI 3.0 document of the topics, made from the table of messages and the topics."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from streams.contract.messages import MESSAGES, Message, headers_schema, key_schema
from streams.contract.schemas import mode_of, shared_schemas
from streams.topics import TOPICS, Topic

BINDING = "0.5.0"
_ABOUT = (
    "Usage, costs and anomalies of inference on your own accelerators. Events are CloudEvents 1.0 "
    "in Kafka's binary mode: attributes are ce_* headers, the value is JSON. Delivery is at least "
    "once; (ce_source, ce_id) is an event's identity. Fields are added and never renamed or "
    "removed, and a word may be added where one of several is written: pass over what you don't "
    "know. Money is text, exact, and may have an exponent."
)


def asyncapi_document() -> dict[str, Any]:
    shared = shared_schemas()
    topics = {topic.name: topic for topic in TOPICS}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "inference-meter",
            "version": version("inference-meter"),
            "description": _ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{address}",
                "protocol": "kafka",
                "description": "With TLS or SASL as the cluster asks for.",
                "variables": {"address": {"default": "127.0.0.1:9092"}},
            }
        },
        "channels": {m.topic: _channel(m, topics[m.topic]) for m in MESSAGES},
        "operations": {name: made for m in MESSAGES for name, made in _operations(m).items()},
        "components": {
            "messages": {
                m.name: _message(m, {"validation": shared.taken, "serialization": shared.written})
                for m in MESSAGES
            },
            "schemas": shared.definitions,
        },
    }


def _channel(message: Message, topic: Topic) -> dict[str, Any]:
    return {
        "address": topic.name,
        "title": topic.name,
        "description": message.summary,
        "messages": {message.name: {"$ref": f"#/components/messages/{message.name}"}},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": _configuration(topic),
                "bindingVersion": BINDING,
            }
        },
    }


def _configuration(topic: Topic) -> dict[str, Any]:
    configs: dict[str, Any] = {
        name: int(value) if value.isdecimal() else value for name, value in topic.configs.items()
    }
    configs["cleanup.policy"] = topic.configs.get("cleanup.policy", "delete").split(",")
    return configs


def _operations(message: Message) -> dict[str, Any]:
    """From where we stand: what we send, and what we receive from whoever sends it."""
    operation: dict[str, Any] = {
        "channel": {"$ref": f"#/channels/{message.topic}"},
        "messages": [{"$ref": f"#/channels/{message.topic}/messages/{message.name}"}],
    }
    operations = {f"send.{message.name}": {"action": "send", **operation}}
    if message.open_to_others:
        operations[f"receive.{message.name}"] = {"action": "receive", **operation}
    return operations


def _message(message: Message, names: dict[str, dict[str, str]]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": message.name,
        "title": message.name,
        "summary": message.summary,
        "headers": headers_schema(message),
    }
    if message.payload is None:
        made["contentType"] = "application/octet-stream"
    else:
        made["contentType"] = "application/json"
        name = names[mode_of(message)][message.topic]
        made["payload"] = {"$ref": f"#/components/schemas/{name}"}
    key = key_schema(message)
    if key is not None:
        made["bindings"] = {"kafka": {"key": key, "bindingVersion": BINDING}}
    return made

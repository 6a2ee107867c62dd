"""JSON schemas of what the topics carry: as it is written, and as it is taken.

They differ. What is written has every field and money as text; what is taken may leave out fields
that have a default, and may write money as a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from streams.contract.messages import MESSAGES, Message, headers_schema, key_schema

Mode = Literal["validation", "serialization"]
COMPONENTS = "#/components/schemas/{model}"


class _Generator(GenerateJsonSchema):
    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """Decimals are text in the events, exact, and may have an exponent (``1E-9``)."""
        made = super().decimal_schema(schema)
        return {**made, "format": "decimal"} if made.get("type") == "string" else made


@dataclass(frozen=True, slots=True)
class Shared:
    """Schemas that refer to one another; ``of`` maps a topic to the name of its own."""

    definitions: dict[str, dict[str, Any]]
    written: dict[str, str]
    taken: dict[str, str]


def mode_of(message: Message) -> Mode:
    """By which schema the topic's messages are described and held to."""
    return "validation" if message.open_to_others else "serialization"


def shared_schemas(messages: Sequence[Message] = MESSAGES, template: str = COMPONENTS) -> Shared:
    """Where both schemas of a type are the same, both have one name."""
    asked: list[tuple[Any, Mode]] = [
        (m.payload, mode)
        for m in messages
        for mode in ("serialization", "validation")
        if m.payload is not None
    ]
    refs, document = models_json_schema(asked, ref_template=template, schema_generator=_Generator)

    def named(mode: Mode) -> dict[str, str]:
        return {
            m.topic: str(refs[m.payload, mode]["$ref"]).rpartition("/")[2]
            for m in messages
            if m.payload is not None
        }

    return Shared(document["$defs"], named("serialization"), named("validation"))


def topic_schemas(messages: Sequence[Message] = MESSAGES) -> dict[str, dict[str, Any]]:
    """Each topic by itself, as it is held to from release to release. ``written_by`` says whose
    promise it is: ``us``, so readers may rely on it, or ``anyone``, so that writers may too."""
    return {
        message.topic: {
            "written_by": "anyone" if message.open_to_others else "us",
            "key": key_schema(message),
            "headers": headers_schema(message),
            "payload": None
            if message.payload is None
            else message.payload.model_json_schema(
                mode=mode_of(message), schema_generator=_Generator
            ),
        }
        for message in messages
    }

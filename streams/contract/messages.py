"""What each topic carries: the one table from which schemas and documents are made."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import BaseModel

from metering.capacity import CapacityHeartbeat
from metering.cloudevents import (
    COST_ANOMALY_TYPE,
    COST_REQUEST_TYPE,
    COST_WINDOW_TYPE,
    USAGE_BATCH_TYPE,
    USAGE_CAPACITY_TYPE,
    USAGE_RECONCILIATION_TYPE,
    USAGE_REFUSED_TYPE,
)
from metering.costs import Anomaly, WindowRow
from metering.reconciliation import Verdict
from metering.tenant_costs import TenantCosts
from metering.usage_columns import UsageEvent
from streams.topics import (
    COST_ANOMALIES,
    COST_REQUESTS,
    COST_WINDOWS,
    USAGE_BATCHES,
    USAGE_CAPACITY,
    USAGE_DLQ,
    USAGE_RECONCILIATION,
)

JsonSchema = dict[str, object]


@dataclass(frozen=True, slots=True)
class Message:
    """``payload`` is ``None`` where the value is whatever came. ``key``, ``source``, ``id`` and
    ``time`` say in words what stands there; ``key_pattern`` is a regular expression, ``None``
    where there is no key. ``open_to_others``: whoever likes may write to the topic too, so what is
    written there is held to what we take.
    """

    topic: str
    name: str
    summary: str
    payload: type[BaseModel] | None
    event_type: str
    key: str
    source: str
    id: str
    time: str | None
    key_pattern: str | None = "^.+$"
    open_to_others: bool = False
    more_headers: dict[str, JsonSchema] = field(default_factory=dict)
    header_patterns: dict[str, JsonSchema] = field(default_factory=dict)


MESSAGES: tuple[Message, ...] = (
    Message(
        USAGE_BATCHES,
        "usageBatch",
        "What a server did: one executed batch, or requests that never reached their model.",
        UsageEvent,
        USAGE_BATCH_TYPE,
        key="the event's source, so that one source's batches keep their order",
        source="the payload's source",
        id="the payload's sequence",
        time=None,
        open_to_others=True,
    ),
    Message(
        USAGE_DLQ,
        "refusedMessage",
        "A message that was refused, of usage or a heartbeat, byte for byte as it came, and why.",
        None,
        USAGE_REFUSED_TYPE,
        key="none",
        source="the worker; of heartbeats the reconciler",
        id=(
            "partition@offset of the message in usage.batches.v1, or "
            "usage.capacity.v1/partition@offset"
        ),
        time=None,
        key_pattern=None,
        more_headers={
            "meter_reason": {
                "type": "string",
                "description": "Why. `late`, `too-large`: priced and stored, but the "
                "windows named are as they were.",
                "enum": [
                    "malformed",
                    "invalid",
                    "wrong-type",
                    "from-the-future",
                    "late",
                    "too-large",
                ],
            },
            "meter_detail": {
                "type": "string",
                "description": "What is wrong and the value found there, for people.",
            },
        },
        header_patterns={
            "^original_": {
                "type": "string",
                "description": "A header of the message as it came, under original_ and its name.",
            },
        },
    ),
    Message(
        USAGE_CAPACITY,
        "capacityHeartbeat",
        "What a host could do and did, every few seconds, in counters that only grow.",
        CapacityHeartbeat,
        USAGE_CAPACITY_TYPE,
        key="the host",
        source="the payload's source",
        id="the payload's sequence",
        time="when the counters were asked for",
    ),
    Message(
        USAGE_RECONCILIATION,
        "verdict",
        "What is stored of one model against Triton's own counters.",
        Verdict,
        USAGE_RECONCILIATION_TYPE,
        key="boot_id/model/version; within a name / is %2F and % is %25",
        source="the reconciler",
        id="the key and time_ns: key@time_ns",
        time="when the counters were asked for",
    ),
    Message(
        COST_REQUESTS,
        "tenantCosts",
        "Some of a tenant's requests, priced, in columns.",
        TenantCosts,
        COST_REQUEST_TYPE,
        key="the tenant, so that one tenant's costs keep their order",
        source="the worker",
        id=(
            "partition@first-last/part: the usage messages that the lines come from. After a crash "
            "the same lines may come in other parts; a line's own identity is in the payload"
        ),
        time=None,
    ),
    Message(
        COST_WINDOWS,
        "windowRow",
        (
            "Unit costs of one tenant, model and region in one window: "
            "keep the highest counted_to of a key."
        ),
        WindowRow,
        COST_WINDOW_TYPE,
        key=(
            "window_seconds/window_start_ms/tenant/model/region: of one window and cohort alone. "
            "Within a name / is %2F and % is %25. The topic is compacted by it"
        ),
        source="the worker",
        id="the key and counted_to, and ~ after it while the window is open: key@counted_to~",
        time="the window's end",
        key_pattern=r"^[0-9]+/-?[0-9]+/[^/]*/[^/]*/[^/]*$",
    ),
    Message(
        COST_ANOMALIES,
        "anomaly",
        "A window whose spend was not expected, and why.",
        Anomaly,
        COST_ANOMALY_TYPE,
        key="the tenant",
        source="the detector",
        id="the payload's anomaly_id",
        time="the window's end",
    ),
)


def headers_schema(message: Message) -> JsonSchema:
    """CloudEvents in Kafka's binary mode; each value is UTF-8 text."""
    properties: dict[str, JsonSchema] = {
        "ce_specversion": {"type": "string", "const": "1.0"},
        "ce_type": {"type": "string", "const": message.event_type},
        "ce_source": {
            "type": "string",
            "description": f"With ce_id the identity: {message.source}.",
        },
        "ce_id": {"type": "string", "description": message.id},
    }
    if message.time is not None:
        properties["ce_time"] = {
            "type": "string",
            "format": "date-time",
            "description": f"RFC 3339, UTC, nanoseconds: {message.time}.",
        }
    properties["content-type"] = {"type": "string", "const": "application/json"}
    properties |= message.more_headers
    schema: JsonSchema = {"type": "object", "properties": properties}
    if not message.open_to_others:  # a plain producer need not send any
        schema["required"] = sorted(properties)
    if message.header_patterns:
        schema["patternProperties"] = message.header_patterns
    return schema


def key_schema(message: Message) -> JsonSchema | None:
    if message.key_pattern is None:
        return None
    return {"type": "string", "description": message.key, "pattern": message.key_pattern}

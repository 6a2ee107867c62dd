"""The Kafka topics. Names carry a version; a schema only ever grows."""

from __future__ import annotations

from dataclasses import dataclass, field

USAGE_BATCHES = "usage.batches.v1"
USAGE_DLQ = "usage.dlq.v1"
USAGE_CAPACITY = "usage.capacity.v1"
USAGE_RECONCILIATION = "usage.reconciliation.v1"
COST_REQUESTS = "cost.requests.v1"
COST_WINDOWS = "cost.windows.v1"
COST_ANOMALIES = "cost.anomalies.v1"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it is created where it does not exist yet."""

    name: str
    partitions: int
    configs: dict[str, str] = field(default_factory=dict)


_WEEK_MS = str(7 * 24 * 3_600_000)
LARGEST_FRAME_BYTES = 16 * 1024**2
"""A frame of the usage log must fit into a message, or it stops all that is behind it."""

TOPICS: tuple[Topic, ...] = (
    # One partition: windows are over all sources, so one reader must see them all.
    # The broker's stamp bounds how far in the future an event may lie.
    Topic(
        USAGE_BATCHES,
        1,
        {
            "retention.ms": _WEEK_MS,
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(LARGEST_FRAME_BYTES + 64 * 1024),
        },
    ),
    # What was refused, with its headers twice and the reason.
    Topic(
        USAGE_DLQ,
        1,
        {"retention.ms": _WEEK_MS, "max.message.bytes": str(LARGEST_FRAME_BYTES + 512 * 1024)},
    ),
    # One partition: a host's heartbeats keep their order.
    Topic(USAGE_CAPACITY, 1, {"retention.ms": _WEEK_MS}),
    Topic(USAGE_RECONCILIATION, 1, {"retention.ms": _WEEK_MS}),
    # Many lines of a tenant in a message.
    Topic(
        COST_REQUESTS,
        4,
        {"retention.ms": _WEEK_MS, "max.message.bytes": str(LARGEST_FRAME_BYTES)},
    ),
    Topic(COST_WINDOWS, 1, {"retention.ms": _WEEK_MS}),
    Topic(COST_ANOMALIES, 1, {"retention.ms": _WEEK_MS}),
)

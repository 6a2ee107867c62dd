"""The Kafka topics. Names carry a version; a schema only ever grows."""

from __future__ import annotations

from dataclasses import dataclass, field

USAGE_BATCHES = "usage.batches.v1"
ADDITIONS = "meter.additions.v1"
LEDGERS = "meter.ledgers.v1"
TOTALS = "meter.totals.v1"
USAGE_DLQ = "usage.dlq.v1"
USAGE_CAPACITY = "usage.capacity.v1"
USAGE_RECONCILIATION = "usage.reconciliation.v1"
COST_REQUESTS = "cost.requests.v1"
COST_WINDOWS = "cost.windows.v1"
COST_ANOMALIES = "cost.anomalies.v1"


FOLLOWS = {LEDGERS: USAGE_BATCHES, TOTALS: ADDITIONS}
"""Has as many partitions as the other."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it should be. With ``one_reader`` more than one partition is a fault: whoever
    reads it must see everything, in its order. With ``is_fixed`` none are added once it is there:
    what is where follows from their number. ``configs`` are those that we care about. Topics
    that begin with ``meter.`` are internal: the worker's own, and nobody's contract."""

    name: str
    partitions: int
    configs: dict[str, str] = field(default_factory=dict)
    one_reader: bool = False
    is_fixed: bool = False

    @property
    def is_internal(self) -> bool:
        return self.name.startswith("meter.")


_DAY_MS = 24 * 3_600_000
_WEEK_MS = str(7 * _DAY_MS)
LARGEST_FRAME_BYTES = 16 * 1024**2
"""A frame of the usage log must fit into a message, or it stops all that is behind it."""
USAGE_PARTITIONS = 4
TOTALS_PARTITIONS = 4
_STATE = {
    "cleanup.policy": "compact",
    "segment.bytes": str(16 * 1024**2),
    "min.cleanable.dirty.ratio": "0.1",
    "delete.retention.ms": "60000",
    "max.message.bytes": str(LARGEST_FRAME_BYTES),
}

TOPICS: tuple[Topic, ...] = (
    # By source. As many workers as partitions can share it.
    # The broker's stamp bounds how far in the future an event may lie.
    Topic(
        USAGE_BATCHES,
        USAGE_PARTITIONS,
        {
            "retention.ms": _WEEK_MS,
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(LARGEST_FRAME_BYTES + 64 * 1024),
        },
    ),
    # One for each partition of usage: what is counted, in a record for each source, and a head.
    Topic(LEDGERS, USAGE_PARTITIONS, _STATE),
    # By cohort. A week, as usage: a worker goes on where the totals end.
    Topic(
        ADDITIONS,
        TOTALS_PARTITIONS,
        {"retention.ms": _WEEK_MS, "max.message.bytes": str(LARGEST_FRAME_BYTES)},
        is_fixed=True,
    ),
    # One for each partition of additions: the windows that may still change.
    Topic(TOTALS, TOTALS_PARTITIONS, _STATE, is_fixed=True),
    # What was refused, with its headers twice and the reason.
    Topic(
        USAGE_DLQ,
        1,
        {"retention.ms": _WEEK_MS, "max.message.bytes": str(LARGEST_FRAME_BYTES + 512 * 1024)},
    ),
    # One partition: a host's heartbeats keep their order. The broker's stamp says what lies in the
    # future.
    Topic(
        USAGE_CAPACITY,
        1,
        {"retention.ms": _WEEK_MS, "message.timestamp.type": "LogAppendTime"},
        one_reader=True,
    ),
    Topic(USAGE_RECONCILIATION, 1, {"retention.ms": _WEEK_MS}),
    # Many lines of a tenant in a message.
    Topic(
        COST_REQUESTS,
        4,
        {"retention.ms": _WEEK_MS, "max.message.bytes": str(LARGEST_FRAME_BYTES)},
    ),
    # Compacted: a row replaces the earlier rows of its window and cohort, and a window has up to
    # one a second while it is open. Deleted too, after a month: a window's key never comes again,
    # so compaction alone would keep one row of every window for ever. A day stays as it came: the
    # detector's memory, and who was away for a night, see every step. A segment is closed once a
    # day, for the open one is never compacted.
    Topic(
        COST_WINDOWS,
        1,
        {
            "cleanup.policy": "compact,delete",
            "retention.ms": str(30 * _DAY_MS),
            "min.compaction.lag.ms": str(_DAY_MS),
            "segment.ms": str(_DAY_MS),
        },
        one_reader=True,
    ),
    Topic(COST_ANOMALIES, 1, {"retention.ms": _WEEK_MS}),
)

"""CloudEvents 1.0 in Kafka's binary mode: attributes as headers, the event's data as the value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache

from metering.errors import UnreadableUsage

SPEC_VERSION = "1.0"
USAGE_BATCH_TYPE = "inference-meter.usage.batch.v1"
USAGE_REFUSED_TYPE = "inference-meter.usage.refused.v1"
USAGE_CAPACITY_TYPE = "inference-meter.usage.capacity.v1"
USAGE_RECONCILIATION_TYPE = "inference-meter.usage.reconciliation.v1"
COST_REQUEST_TYPE = "inference-meter.cost.request.v1"
COST_WINDOW_TYPE = "inference-meter.cost.window.v1"
COST_ANOMALY_TYPE = "inference-meter.cost.anomaly.v1"

Headers = list[tuple[str, bytes]]


def encode_headers(event_type: str, source: str, event_id: str, time_ns: int | None) -> Headers:
    """The headers of one event; ``(source, id)`` is its identity. ``time_ns`` is epoch ns."""
    before, behind = around_id(event_type, source, time_ns)
    return [*before, ("ce_id", event_id.encode()), *behind]


@lru_cache(1024)
def around_id(event_type: str, source: str, time_ns: int | None) -> tuple[Headers, Headers]:
    """The headers before ``ce_id`` and behind it: many events of one time have the same."""
    time = [] if time_ns is None else [("ce_time", rfc3339(time_ns).encode())]
    return [
        ("ce_specversion", SPEC_VERSION.encode()),
        ("ce_type", event_type.encode()),
        ("ce_source", source.encode()),
    ], [*time, ("content-type", b"application/json")]


def check_headers(headers: Iterable[tuple[str, bytes]], event_type: str) -> None:
    """Refuse what calls itself something else. A message without these headers is taken by its
    value alone, so that a plain producer can feed the topic.

    Raises:
        UnreadableUsage: another ``ce_type`` or ``ce_specversion``.
    """
    wanted_of = _wanted(event_type)
    for name, found in headers:  # each of them, as a name may be there twice
        if name in wanted_of and found != wanted_of[name]:
            wanted = wanted_of[name].decode()
            raise UnreadableUsage("wrong-type", f"{name}: want {wanted!r}, got {found[:80]!r}")


@cache
def _wanted(event_type: str) -> Mapping[str, bytes]:
    return {"ce_specversion": SPEC_VERSION.encode(), "ce_type": event_type.encode()}


def rfc3339(time_ns: int) -> str:
    seconds, ns = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns:09d}Z"

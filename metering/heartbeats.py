"""Messages of the capacity topic to heartbeats whose every law holds, or to what is wrong."""

from __future__ import annotations

from pydantic import ValidationError

from metering.capacity import CapacityHeartbeat
from metering.cloudevents import USAGE_CAPACITY_TYPE, check_headers
from metering.errors import UnreadableUsage
from metering.messages import Message

FUTURE_NS = 60 * 10**9
"""As for usage: by so much may a host's clock be ahead of the broker's."""


def heartbeat_of(message: Message) -> CapacityHeartbeat:
    """The heartbeat in a message. Whether it lies in the future is judged by the broker's stamp, so
    that a repetition comes to the same answer.

    Raises:
        UnreadableUsage: with the reason ``wrong-type``, ``malformed``, ``invalid`` or
            ``from-the-future``.
    """
    check_headers(message.headers, USAGE_CAPACITY_TYPE)
    try:
        beat = CapacityHeartbeat.model_validate_json(message.value)
    except ValidationError as exc:
        raise unreadable(exc) from None
    stamps = {"time_ns": beat.time_ns, "asked_ns": beat.asked_ns}
    stamps |= {f"read_ns of {d.device!r}": d.read_ns for d in beat.devices if d.read_ns is not None}
    for name, stamp_ns in stamps.items():
        if stamp_ns > message.appended_ns + FUTURE_NS:
            raise UnreadableUsage(
                "from-the-future",
                f"{name}={stamp_ns} is more than {FUTURE_NS // 10**9} s after the broker's "
                f"{message.appended_ns}: check the host's clock",
            )
    return beat


def unreadable(exc: ValidationError) -> UnreadableUsage:
    """What pydantic found, as the reason and detail of a dead letter."""
    found = exc.errors(include_url=False, include_input=True)
    if found[0]["type"] == "json_invalid":
        return UnreadableUsage("malformed", found[0]["msg"])
    problems = (
        f"{'.'.join(map(str, p['loc'])) or 'event'}: {p['msg']}, got {str(p['input'])[:80]!r}"
        for p in found[:10]
    )
    return UnreadableUsage("invalid", "; ".join(problems))

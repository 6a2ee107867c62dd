"""Messages of the capacity topic to heartbeats whose every law holds, or to what is wrong."""

from __future__ import annotations

from metering.capacity import CapacityHeartbeat
from metering.cloudevents import USAGE_CAPACITY_TYPE
from metering.errors import UnreadableUsage
from metering.messages import Message
from metering.reading import FUTURE_NS, read_event


def heartbeat_of(message: Message) -> CapacityHeartbeat:
    """The heartbeat in a message. Whether it lies in the future is judged by the broker's stamp, so
    that a repetition comes to the same answer.

    Raises:
        UnreadableUsage: with the reason ``wrong-type``, ``malformed``, ``invalid`` or
            ``from-the-future``.
    """
    beat = read_event(message, USAGE_CAPACITY_TYPE, CapacityHeartbeat)
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

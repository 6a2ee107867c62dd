"""A record of aiokafka as a message, whatever it lacks."""

from __future__ import annotations

from typing import Any

from metering.messages import Message

LOG_APPEND_TIME = 1
"""Kafka's code for a stamp that the broker has put."""


def message_of(record: Any, now_ns: int) -> Message:
    """As it came. ``appended_ns`` is the broker's stamp; where the topic takes its stamps from who
    sends, which may be any, it is ``now_ns``. Kafka has null values, in headers too."""
    stamped = record.timestamp_type == LOG_APPEND_TIME and record.timestamp is not None
    return Message(
        record.offset,
        record.timestamp * 10**6 if stamped else now_ns,
        record.value or b"",
        tuple((name, value or b"") for name, value in record.headers or ()),
    )

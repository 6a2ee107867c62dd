"""Messages of the usage topic to documents whose every law holds, or to what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from metering.cloudevents import USAGE_BATCH_TYPE, check_headers
from metering.errors import UnreadableUsage
from metering.frame import Frame, sieve
from metering.records import usage_of_payload
from metering.usage_columns import MOST_REQUESTS, document_of, is_columns
from metering.usage_struct import Event, event_in, event_of


class Message(NamedTuple):
    """One record of the usage topic, as it came. ``appended_ns`` is the broker's stamp (epoch)."""

    offset: int
    appended_ns: int
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Read:
    """Each message's event, or what is wrong with it; with the frame of them all, where that was
    made on the way."""

    events: list[Event | UnreadableUsage]
    frame: Frame | None


def read(messages: Sequence[Message]) -> Read:
    """Events that are sent in columns are looked at together; any other, and any that is not
    plain, by itself."""
    found = [_in_columns(m) for m in messages]
    events = [f for f in found if isinstance(f, Event)]
    plain, frame = sieve(events)
    if frame is not None and len(events) == len(messages):
        return Read(events, frame)
    is_plain = iter(plain)
    return Read(
        [
            _by_itself(m) if f is None or (isinstance(f, Event) and not next(is_plain)) else f
            for m, f in zip(messages, found, strict=True)
        ],
        None,
    )


def _in_columns(message: Message) -> Event | UnreadableUsage | None:
    """``None``: it has to be read by itself."""
    try:
        check_headers(message.headers, USAGE_BATCH_TYPE)
    except UnreadableUsage as exc:
        return _alone(exc)
    if not is_columns(message.value):
        return None
    event = event_in(message.value)
    if event is None or len(event.requests.request_id) > MOST_REQUESTS:
        return None
    return event


def _by_itself(message: Message) -> Event | UnreadableUsage:
    try:
        return event_of(document_of(usage_of_payload(message.value)))
    except UnreadableUsage as exc:
        return _alone(exc)


def _alone(exc: UnreadableUsage) -> UnreadableUsage:
    """The same without its traceback and its cause. An error of pydantic's core holds what a
    validator raised where Python's collector does not see it, and by that all frames up to who
    keeps the error: none of them would ever be freed."""
    return UnreadableUsage(exc.reason, exc.detail)

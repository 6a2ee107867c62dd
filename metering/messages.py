"""Messages of the usage topic to documents whose every law holds, or to what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from metering.cloudevents import USAGE_BATCH_TYPE, check_headers
from metering.errors import UnreadableUsage
from metering.finishing import usage_of_payload
from metering.frame import Frame, frame_of, sieve
from metering.scanning import frame_in
from metering.usage_columns import MOST_REQUESTS, document_of, is_columns
from metering.usage_struct import Event, event_in, event_of


class Message(NamedTuple):
    """One record of the usage topic, as it came. ``appended_ns`` is the broker's stamp (epoch)."""

    offset: int
    appended_ns: int
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class Head(NamedTuple):
    """What of an event is looked at before its columns."""

    source: str
    sequence: int
    end_epoch_ns: int


@dataclass(frozen=True, slots=True)
class Read:
    """Each message's head, or what is wrong with it; and how to come by the columns of some."""

    heads: Sequence[Head | UnreadableUsage]
    _whole: Frame | None
    _events: Sequence[Event | UnreadableUsage] = ()

    def frame(self, places: Sequence[int]) -> Frame:
        """Of the messages at these places, in ascending order; nothing is wrong with any of them,
        and there is at least one."""
        if self._whole is None:
            return frame_of([self._events[n] for n in places])
        if len(places) == len(self.heads):
            return self._whole
        return self._whole.take(np.array(places, np.intp))


def read(messages: Sequence[Message]) -> Read:
    """Events that are sent in columns are looked at together; any other, and any that is not
    plain, by itself."""
    return _together(messages) or _one_by_one(messages)


def _together(messages: Sequence[Message]) -> Read | None:
    """If nothing is wrong with any of them."""
    values = [m.value for m in messages if _is_as_named(m) and is_columns(m.value)]
    frame = frame_in(values) if messages and len(values) == len(messages) else None
    if frame is None:
        return None
    heads = zip(
        frame.batches["source"].tolist(),
        frame.batches["sequence"].tolist(),
        frame.batches["end_epoch_ns"].tolist(),
        strict=True,
    )
    return Read(list(map(Head._make, heads)), frame)


def _is_as_named(message: Message) -> bool:
    try:
        check_headers(message.headers, USAGE_BATCH_TYPE)
    except UnreadableUsage:
        return False
    return True


def _one_by_one(messages: Sequence[Message]) -> Read:
    found = [_in_columns(m) for m in messages]
    events = [f for f in found if isinstance(f, Event)]
    plain, frame = sieve(events)
    if frame is None or len(events) < len(messages):
        is_plain = iter(plain)
        events = [
            _by_itself(m) if f is None or (isinstance(f, Event) and not next(is_plain)) else f
            for m, f in zip(messages, found, strict=True)
        ]
        frame = None
    heads = [
        e if isinstance(e, UnreadableUsage) else Head(e.source, e.sequence, e.end_epoch_ns)
        for e in events
    ]
    return Read(heads, frame, events)


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

"""Messages of the project's own topics to their types, or to what is wrong with them."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from metering.cloudevents import check_headers
from metering.messages import Message
from metering.usage import unreadable

FUTURE_NS = 60 * 10**9
"""By so much may a host's clock be ahead of the broker's."""

Event = TypeVar("Event", bound=BaseModel)


def read_event(message: Message, event_type: str, model: type[Event]) -> Event:
    """Parse the event in a message, which its headers must not contradict.

    Raises:
        UnreadableUsage: with the reason ``wrong-type``, ``malformed`` or ``invalid``.
    """
    check_headers(message.headers, event_type)
    try:
        return model.model_validate_json(message.value)
    except ValidationError as exc:
        raise unreadable(exc) from None

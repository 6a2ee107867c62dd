"""Messages of the usage topic to documents whose every law holds, or to what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic_core import from_json

from metering.cloudevents import USAGE_BATCH_TYPE, check_headers
from metering.errors import UnreadableUsage
from metering.frame import Document, Frame, sieve
from metering.records import usage_of_payload
from metering.usage_columns import MOST_REQUESTS, document_of, is_columns


@dataclass(frozen=True, slots=True)
class Message:
    """One record of the usage topic, as it came. ``appended_ns`` is the broker's stamp (epoch)."""

    offset: int
    appended_ns: int
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Read:
    """Each message's event as ``metering.usage_columns`` has it, or what is wrong with it; with the
    frame of them all, where that was made on the way."""

    events: list[Document | UnreadableUsage]
    frame: Frame | None


def read(messages: Sequence[Message]) -> Read:
    """Events that are sent in columns are looked at together; any other, and any that is not
    plain, by itself."""
    found = [_in_columns(m) for m in messages]
    documents = [f for f in found if isinstance(f, dict)]
    plain, frame = sieve(documents)
    if frame is not None and len(documents) == len(messages):
        return Read([*documents], frame)
    is_plain = iter(plain)
    return Read(
        [
            _by_itself(m) if f is None or (isinstance(f, dict) and not next(is_plain)) else f
            for m, f in zip(messages, found, strict=True)
        ],
        None,
    )


def _in_columns(message: Message) -> Document | UnreadableUsage | None:
    """``None``: it has to be read by itself."""
    try:
        check_headers(message.headers, USAGE_BATCH_TYPE)
    except UnreadableUsage as exc:
        return exc
    if not is_columns(message.value):
        return None
    try:
        document: Document = from_json(message.value)
        count = len(document["requests"]["request_id"])
    except (ValueError, KeyError, TypeError):
        return None
    return document if count <= MOST_REQUESTS else None


def _by_itself(message: Message) -> Document | UnreadableUsage:
    try:
        return document_of(usage_of_payload(message.value))
    except UnreadableUsage as exc:
        return exc

"""Messages of the usage topic to documents whose every law holds, or to what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic_core import from_json

from metering.cloudevents import USAGE_BATCH_TYPE, check_headers
from metering.errors import UnreadableUsage
from metering.frame import Document, sieve
from metering.records import usage_of_payload
from metering.usage_columns import document_of, is_columns


@dataclass(frozen=True, slots=True)
class Message:
    """One record of the usage topic, as it came. ``appended_ns`` is the broker's stamp (epoch)."""

    offset: int
    appended_ns: int
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


def read(messages: Sequence[Message]) -> list[Document | UnreadableUsage]:
    """Each message's event as ``metering.usage_columns`` has it. Those that are sent in columns
    are looked at together; any other, and any that is not plain, by itself."""
    found: list[Document | UnreadableUsage | None] = [_in_columns(m) for m in messages]
    at = [n for n, document in enumerate(found) if isinstance(document, dict)]
    plain = sieve([found[n] for n in at])  # type: ignore[misc]  # `at` are the documents
    for n, is_plain in zip(at, plain, strict=True):
        if not is_plain:
            found[n] = None
    return [_by_itself(m) if f is None else f for m, f in zip(messages, found, strict=True)]


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
    except ValueError:
        return None
    return document


def _by_itself(message: Message) -> Document | UnreadableUsage:
    try:
        return document_of(usage_of_payload(message.value))
    except UnreadableUsage as exc:
        return exc

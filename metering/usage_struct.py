"""A usage event in columns as it is decoded: its types are looked at on the way, and nothing else.

The fields are those of ``metering.usage_columns.UsageColumns``. Where a value has another type, or
is written in a way that only the objects' parser understands, there is no such event, and it has
to be read as objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from pydantic.fields import FieldInfo

from metering.usage import RequestUsage, UsageBatch
from metering.usage_columns import COLUMNS

MAX_TEXT = 256
_TEXT = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]


def kind_of(annotation: Any) -> Any:
    """The type alone: texts no longer than ``MAX_TEXT``, integers, flags."""
    if get_origin(annotation) is Annotated:
        return kind_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return Union[tuple(kind_of(a) for a in get_args(annotation))]  # noqa: UP007  # at run time
    if get_origin(annotation) is Literal or annotation is str:
        return _TEXT
    if annotation in (int, bool, NoneType):
        return annotation
    raise TypeError(f"{annotation} is no type of a usage event's field")


def _field(name: str, field: FieldInfo, kind: Any) -> Any:
    return (name, kind) if field.is_required() else (name, kind, field.default)


def _column(field: FieldInfo) -> Any:
    kind = kind_of(field.annotation)
    return kind | list[kind]  # type: ignore[valid-type]  # at run time


_Requests: Any = msgspec.defstruct(
    "_Requests",
    [
        ("request_id", list[_TEXT]),
        ("payers", list[msgspec.Raw]),  # Mostly the same few: ``payer_in`` reads each once.
        ("payer", int | list[int]),
        *(_field(n, f, _column(f)) for n, f in RequestUsage.model_fields.items() if n in COLUMNS),
    ],
    kw_only=True,
    gc=False,
)
Event: Any = msgspec.defstruct(
    "Event",
    [
        ("columns", int),
        *(
            _field(name, field, kind_of(field.annotation))
            for name, field in UsageBatch.model_fields.items()
            if name != "requests"
        ),
        ("requests", _Requests),
    ],
    kw_only=True,
    gc=False,
)
_decode = msgspec.json.Decoder(Event).decode
_payer = msgspec.json.Decoder(tuple[_TEXT, _TEXT, _TEXT, _TEXT, _TEXT, _TEXT | None]).decode


def event_in(payload: bytes) -> Any | None:
    """The ``Event``, if there is one."""
    try:
        if not payload.isascii():
            payload.decode()  # What is passed over in decoding is not looked at there.
        return _decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def event_of(document: Mapping[str, Any]) -> Any:
    """Of ``metering.usage_columns.document_of``."""
    return _decode(msgspec.json.encode(document))


def payer_in(text: bytes) -> tuple[str, str, str, str, str, str | None]:
    """In the order of ``metering.usage_columns.PAYER``.

    Raises:
        ValueError: it is none.
    """
    return _payer(text)

"""A usage event with its requests column by column: what a shipper sends, and a stream reads fast.

The same fields as ``UsageBatch``, under ``"columns": 1``; ``requests`` is one object of columns in
place of many objects. A column is a list with an entry for each request, or one value that all of
them have. Two things are said otherwise: ``payers`` holds each distinct
``[tenant, team, project, user, identity_source, retry_of]`` once, and ``payer`` points into it;
``output_gpu_ns`` is what ``gpu_ns`` leaves beside ``input_gpu_ns``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, RootModel, ValidationError, create_model
from pydantic_core import from_json, to_json

from metering.errors import UnreadableUsage
from metering.usage import (
    Frozen,
    IdentitySource,
    Name,
    NonNegative,
    RequestUsage,
    UsageBatch,
    describe,
    shown,
)  # fmt: skip

VERSION = 1
MOST_REQUESTS = 16_384
"""In an event in columns: few bytes can stand for a request there, and a message has millions."""
_MARK = b'{"columns":'
PAYER = ("tenant", "team", "project", "user", "identity_source", "retry_of")
DERIVED = "output_gpu_ns"
TEXTS = ("operation", "status", "invalid")
COLUMNS = tuple(n for n in RequestUsage.model_fields if n not in (*PAYER, DERIVED, "request_id"))
"""Of a request, beside its id and who pays."""
_DEFAULTS: Mapping[str, Any] = {
    name: field.default
    for name, field in RequestUsage.model_fields.items()
    if name in COLUMNS and not field.is_required()
}
_TEXT = Annotated[str, Field(max_length=256)]
_HEAD = tuple(n for n in UsageBatch.model_fields if n != "requests")


def _column(name: str) -> Any:
    """The type of a request's field, or a list of it."""
    annotation = RequestUsage.model_fields[name].rebuild_annotation()
    return annotation | list[annotation]  # type: ignore[valid-type]  # at run time


def _default(name: str) -> Any:
    return _DEFAULTS.get(name, ...)


RequestColumns = create_model(
    "RequestColumns",
    __base__=Frozen,
    __doc__="""A batch's requests, column by column.

    A column is a list with an entry for each request, or one value that all of them have.
    ``payers`` holds each distinct [tenant, team, project, user, identity_source, retry_of] once;
    ``payer`` points into it.
    """,
    request_id=(list[_TEXT], Field(min_length=1, max_length=MOST_REQUESTS)),
    payers=(list[tuple[Name, _TEXT, _TEXT, _TEXT, IdentitySource, _TEXT | None]], ...),
    payer=(NonNegative | list[NonNegative], ...),
    **{name: (_column(name), _default(name)) for name in COLUMNS},  # type: ignore[call-overload]
)
UsageColumns = create_model(
    "UsageColumns",
    __base__=Frozen,
    __doc__="""A usage event with its requests column by column: ``columns`` comes first.

    The other fields are those of ``UsageBatch``.
    """,
    columns=(Literal[1], ...),
    **{
        name: (field.rebuild_annotation(), ... if field.is_required() else field.default)
        for name, field in UsageBatch.model_fields.items()
        if name != "requests"
    },  # type: ignore[call-overload]
    requests=(RequestColumns, ...),
)


class UsageEvent(RootModel[UsageBatch | UsageColumns]):
    """A usage event in either form; it is only described here, and read by the functions below."""


def is_columns(payload: bytes | memoryview) -> bool:
    return bytes(payload[: len(_MARK)]) == _MARK


def document_of(batch: UsageBatch) -> dict[str, Any]:
    """The event as a JSON object."""
    payers: dict[tuple[Any, ...], int] = {}
    payer = [
        payers.setdefault(tuple(getattr(r, name) for name in PAYER), len(payers))
        for r in batch.requests
    ]
    columns: dict[str, Any] = {
        "request_id": [r.request_id for r in batch.requests],
        "payers": [list(p) for p in payers],
        "payer": _folded(payer),
    }
    for name in COLUMNS:
        columns[name] = _folded([getattr(r, name) for r in batch.requests])
    head = {name: getattr(batch, name) for name in _HEAD}
    return {"columns": VERSION, **head, "requests": columns}


def encode_columns(batch: UsageBatch) -> bytes:
    """In objects where it is too large for columns."""
    if len(batch.requests) > MOST_REQUESTS:
        return batch.model_dump_json().encode()
    return to_json(document_of(batch))


def usage_of_columns(payload: bytes) -> UsageBatch:
    """Raises UnreadableUsage: naming what is wrong and the value found there."""
    try:
        document = from_json(payload)
    except ValueError as exc:
        raise UnreadableUsage("malformed", f"columns: {exc}") from exc
    return usage_of_document(document)


def usage_of_document(document: Mapping[str, Any]) -> UsageBatch:
    """The event as objects, each field looked at.

    Raises:
        UnreadableUsage: naming what is wrong and the value found there.
    """
    if type(document["columns"]) is not int or document["columns"] != VERSION:
        raise UnreadableUsage(
            "invalid", f"columns={shown(document['columns'])}: this version reads {VERSION}"
        )
    head = {name: value for name, value in document.items() if name != "columns"}
    try:
        return UsageBatch.model_validate({**head, "requests": _rows(document.get("requests"))})
    except ValidationError as exc:
        raise UnreadableUsage("invalid", describe(exc)) from exc


def _rows(columns: object) -> list[dict[str, Any]]:
    if not isinstance(columns, dict):
        raise UnreadableUsage("invalid", f"requests: want columns (got {shown(columns)})")
    ids, payers = _list("request_id", columns), _list("payers", columns)
    if len(ids) > MOST_REQUESTS:
        raise UnreadableUsage(
            "invalid",
            f"requests.request_id: {len(ids)} entries; in columns an event has at most "
            f"{MOST_REQUESTS} requests",
        )
    names = [n for n in COLUMNS if n in columns or n not in _DEFAULTS]
    spread = {n: _spread(n, columns, len(ids)) for n in ("payer", *names)}
    return [
        {"request_id": ids[n]}
        | _payer(payers, spread["payer"][n], n)
        | {name: spread[name][n] for name in names}
        | _rest(spread["gpu_ns"][n], spread["input_gpu_ns"][n])
        for n in range(len(ids))
    ]


def _list(name: str, columns: Mapping[str, Any]) -> list[Any]:
    value = columns.get(name)
    if not isinstance(value, list):
        raise UnreadableUsage("invalid", f"requests.{name}: want a list (got {shown(value)})")
    return value


def _spread(name: str, columns: Mapping[str, Any], count: int) -> list[Any]:
    if name not in columns:
        raise UnreadableUsage("invalid", f"requests.{name}: Field required")
    value = columns[name]
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise UnreadableUsage(
            "invalid", f"requests.{name}: {len(value)} entries for {count} requests"
        )
    return value


def _payer(payers: list[Any], place: Any, position: int) -> dict[str, Any]:
    if type(place) is not int or not 0 <= place < len(payers):
        raise UnreadableUsage(
            "invalid",
            f"requests.payer.{position}: want a place in {len(payers)} payers (got {shown(place)})",
        )
    payer = payers[place]
    if not isinstance(payer, list) or len(payer) != len(PAYER):
        raise UnreadableUsage(
            "invalid", f"requests.payers.{place}: want {list(PAYER)} (got {shown(payer)})"
        )
    return dict(zip(PAYER, payer, strict=True))


def _rest(gpu_ns: Any, input_gpu_ns: Any) -> dict[str, Any]:
    """What is no integer is refused under its own name."""
    whole = type(gpu_ns) is int and type(input_gpu_ns) is int
    return {DERIVED: max(0, gpu_ns - input_gpu_ns) if whole else 0}


def _folded(values: list[Any]) -> Any:
    first = values[0]
    return first if values.count(first) == len(values) else values

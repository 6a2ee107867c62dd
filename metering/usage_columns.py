"""A usage event with its requests column by column: what a shipper sends, and a stream reads fast.

The same fields as ``UsageBatch``, under ``"columns": 1``; ``requests`` is one object of columns in
place of many objects. A column is a list with an entry for each request, or one value that all of
them have. Two things are said otherwise: ``payers`` holds each distinct
``[tenant, team, project, user, identity_source, retry_of]`` once, and ``payer`` points into it;
``output_gpu_ns`` is what ``gpu_ns`` leaves beside ``input_gpu_ns``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from metering.errors import UnreadableUsage
from metering.usage import RequestUsage, UsageBatch, describe

VERSION = 1
_MARK = b'{"columns":'
PAYER = ("tenant", "team", "project", "user", "identity_source", "retry_of")
DERIVED = "output_gpu_ns"
TEXTS = ("operation", "status")
COLUMNS = tuple(n for n in RequestUsage.model_fields if n not in (*PAYER, DERIVED, "request_id"))
"""Of a request, beside its id and who pays."""
_DEFAULTS: Mapping[str, Any] = {
    name: field.default
    for name, field in RequestUsage.model_fields.items()
    if name in COLUMNS and not field.is_required()
}
_HEAD = tuple(n for n in UsageBatch.model_fields if n != "requests")


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
            "invalid", f"columns={document['columns']!r:.80}: this version reads {VERSION}"
        )
    head = {name: value for name, value in document.items() if name != "columns"}
    try:
        return UsageBatch.model_validate({**head, "requests": _rows(document.get("requests"))})
    except ValidationError as exc:
        raise UnreadableUsage("invalid", describe(exc)) from exc


def _rows(columns: object) -> list[dict[str, Any]]:
    if not isinstance(columns, dict):
        raise UnreadableUsage("invalid", f"requests: want columns (got {columns!r:.80})")
    ids, payers = _list("request_id", columns), _list("payers", columns)
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
        raise UnreadableUsage("invalid", f"requests.{name}: want a list (got {value!r:.80})")
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
            f"requests.payer.{position}: want a place in {len(payers)} payers (got {place!r:.80})",
        )
    payer = payers[place]
    if not isinstance(payer, list) or len(payer) != len(PAYER):
        raise UnreadableUsage(
            "invalid", f"requests.payers.{place}: want {list(PAYER)} (got {payer!r:.80})"
        )
    return dict(zip(PAYER, payer, strict=True))


def _rest(gpu_ns: Any, input_gpu_ns: Any) -> dict[str, Any]:
    """What is no integer is refused under its own name."""
    whole = type(gpu_ns) is int and type(input_gpu_ns) is int
    return {DERIVED: max(0, gpu_ns - input_gpu_ns) if whole else 0}


def _folded(values: list[Any]) -> Any:
    first = values[0]
    return first if values.count(first) == len(values) else values

"""What ``cost.requests.v1`` carries: lines of one tenant, column by column."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, create_model

from metering.columns import Coded, Column, Ints, constant
from metering.costs import CostLine
from metering.lines import MONEY, CostLines, tenant_order
from metering.money import atto_usd, usd
from metering.money_columns import dollars
from metering.tenant_messages import Followers, Part, writer_of
from metering.usage import Frozen, Name

MAX_LINES = 500
"""In a message. With the longest names it has some 8 MB, else a tenth of that."""
_FIRST = np.array([0])
_LEADER = "source"
"""Most of what is said of a server is the same for all lines of one source."""
_REST = ("output_gpu_ns", "output_cost_usd")
"""Left out: what the whole leaves beside the part of the input."""
_NAMES = tuple(n for n in CostLine.model_fields if n != "tenant" and n not in _REST)

_json = msgspec.json.Encoder().encode


class Dictionary(BaseModel):
    """A column of few values: line ``n`` has ``values[codes[n]]``.

    In place of ``codes`` there may be the name of another field, whose ``codes`` they are.
    """

    values: list[Any]
    codes: list[int] | str


def _any_of_three(name: str) -> Any:
    """The type of a line's field, a list of it, or a dictionary."""
    annotation = CostLine.model_fields[name].rebuild_annotation()
    return annotation | list[annotation] | Dictionary  # type: ignore[valid-type]  # at run time


TenantCosts = create_model(
    "TenantCosts",
    __base__=Frozen,
    __doc__="""Some of a tenant's requests, priced.

    The fields are those of a line (``CostLine``), without ``output_gpu_ns`` and
    ``output_cost_usd``: what ``gpu_ns`` and ``cost_usd`` leave beside ``input_gpu_ns`` and
    ``input_cost_usd``. Each is one value that all of the ``lines`` have, or a list with an entry
    for each, or an object with the few ``values`` that there are and ``codes``, an entry for each
    line that points into them, or the name of another field that has the same ``codes``. A line is
    identified by its ``source``, ``sequence`` and ``position``: one that comes again, in another
    message too, is the same line.
    """,
    tenant=(Name, ...),
    lines=(int, Field(ge=1)),
    **{name: (_any_of_three(name), ...) for name in _NAMES},  # type: ignore[call-overload]  # fields by name
)


def tenant_values(lines: CostLines) -> Iterator[tuple[str, bytes]]:
    """(tenant, message) for each tenant, several where it has many lines; they keep their order."""
    if lines.count == 0:
        return
    order, places = tenant_order(lines)
    same, parts, leader, followers = _parts(lines)
    write = writer_of(order, parts, leader, followers)
    for tenant, first, end in places:
        for start in range(first, end, MAX_LINES):
            stop = min(end, start + MAX_LINES)
            head = b'{"tenant":%b,"lines":%d%b' % (_json(tenant), stop - start, same)
            yield tenant, write(head, start, stop)


def _parts(lines: CostLines) -> tuple[bytes, list[Part], Part | None, Followers]:
    """What is the same in all lines, the columns of which that is not so, the leader if it is one
    of them, and what follows it: most messages are of the same few servers."""
    leader = lines.coded(_LEADER)
    of_leader = _first_rows(leader)
    alike = of_leader[leader.codes]
    same: list[bytes] = []
    parts: list[Part] = []
    led: dict[str, list[Any]] = {}
    for name in _NAMES:
        column = lines.columns[name]
        before = b',"%b":' % name.encode()
        if constant(column):
            same.append(before + _json(_values(name, column.take(_FIRST))[0]))
        elif not isinstance(column, Coded):
            parts.append(Part(before, _flags_coded(column), name in MONEY))
        elif name != _LEADER:
            if (column.codes[alike] == column.codes).all():
                own = column.codes[of_leader].tolist()
                led[name] = _texts(name, [column.values[n] for n in own])
            else:
                parts.append(Part(before, _in_json(_texts(name, column.values), column)))
    part = None
    if not constant(leader):
        part = Part(b',"%b":' % _LEADER.encode(), _in_json(leader.values, leader))
    return b"".join(same), parts, part, partial(_followers, led)


def _in_json(texts: Sequence[Any], column: Coded) -> Coded:
    return Coded([_json(text) for text in texts], column.codes)


def _flags_coded(column: Column) -> Column:
    if isinstance(column, Ints) and column.values.dtype == np.bool_ and column.known is None:
        return Coded([b"false", b"true"], column.values.astype(np.int32))
    return column


def _first_rows(leader: Coded) -> NDArray[np.intp]:
    """A row for each of the leader's values that has it; 0 where there is none."""
    rows = np.zeros(len(leader.values), np.intp)
    rows[leader.codes] = np.arange(len(leader.codes))
    return rows


def _followers(led: Mapping[str, Sequence[Any]], used: list[int]) -> bytes:
    columns: dict[str, Any] = {}
    for name, texts in led.items():
        own = [texts[n] for n in used]
        alike = own.count(own[0]) == len(own)
        columns[name] = own[0] if alike else {"values": own, "codes": _LEADER}
    rest = _json(columns)[1:-1]
    return b"," + rest if rest else b""


def lines_in(value: bytes) -> list[CostLine]:
    """The message's lines, each as an object.

    Raises:
        ValueError: it is no such message.
    """
    document: Mapping[str, Any] = json.loads(value)
    count = document["lines"]
    spread = {name: _spread(document, name, count) for name in ("tenant", *_NAMES)}
    spread["output_gpu_ns"] = [
        whole - part for whole, part in zip(spread["gpu_ns"], spread["input_gpu_ns"], strict=True)
    ]
    spread["output_cost_usd"] = [
        None if whole is None else usd(atto_usd(Decimal(whole)) - atto_usd(Decimal(part)))
        for whole, part in zip(spread["cost_usd"], spread["input_cost_usd"], strict=True)
    ]
    rows = zip(*spread.values(), strict=True)
    return [CostLine.model_validate(dict(zip(spread, row, strict=True))) for row in rows]


def _spread(document: Mapping[str, Any], name: str, count: int) -> list[Any]:
    column = document[name]
    if isinstance(column, dict):
        codes = column["codes"]
        if isinstance(codes, str):
            codes = document[codes]["codes"]
        return [column["values"][code] for code in codes]
    return column if isinstance(column, list) else [column] * count


def _values(name: str, column: Column) -> list[Any]:
    if name in MONEY and isinstance(column, Ints):
        return dollars(column)
    if isinstance(column, Coded):
        return Coded(_texts(name, column.values), column.codes).tolist()
    return column.tolist()


def _texts(name: str, values: Sequence[Any]) -> list[Any]:
    if name == "usd_per_gpu_hour":
        return [None if price is None else f"{price:f}" for price in values]
    return list(values)

"""What ``cost.requests.v1`` carries: lines of one tenant, column by column."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, TypeAlias

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, Field, create_model

from metering.columns import Coded, Column, Ints, constant, used_codes
from metering.costs import CostLine
from metering.lines import MONEY, CostLines, tenant_order
from metering.money import atto_usd, usd
from metering.money_columns import dollar_rows, dollars
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
_numbers = partial(orjson.dumps, option=orjson.OPT_SERIALIZE_NUMPY)
"""Of an array, without an object for each number: a third of the time."""
Piece: TypeAlias = bytes | memoryview
Cut: TypeAlias = Callable[[int, int], Sequence[Piece]]
"""A column's JSON, in pieces, for the lines from one to before another."""


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
    leader = lines.coded(_LEADER)
    of_leader = _first_rows(leader)
    alike = of_leader[leader.codes]
    same: list[bytes] = []
    cuts: dict[bytes, Cut] = {}
    followers: dict[str, Sequence[Any]] = {}
    for name in _NAMES:
        column = lines.columns[name]
        if constant(column):
            value = _json(_values(name, column.take(_FIRST))[0])
            same.append(b',"%b":%b' % (name.encode(), value))
        elif isinstance(column, Coded):
            if name == _LEADER:
                continue
            if (column.codes[alike] == column.codes).all():
                led = column.codes[of_leader].tolist()
                followers[name] = _texts(name, [column.values[n] for n in led])
            else:
                cuts[b',"%b":' % name.encode()] = _few(name, column.take(order))
        else:
            cuts[b',"%b":' % name.encode()] = _each(name, column.take(order))
    led_cut = None if constant(leader) else _led(leader.take(order), followers)
    for tenant, first, end in places:
        for start in range(first, end, MAX_LINES):
            stop = min(end, start + MAX_LINES)
            parts: list[Piece] = [b'{"tenant":%b,"lines":%d' % (_json(tenant), stop - start), *same]
            for before, cut in cuts.items():
                parts.append(before)
                parts += cut(start, stop)
            if led_cut is not None:
                parts += led_cut(start, stop)
            parts.append(b"}")
            yield tenant, b"".join(parts)


def _first_rows(leader: Coded) -> NDArray[np.intp]:
    """A row for each of the leader's values that has it; 0 where there is none."""
    rows = np.zeros(len(leader.values), np.intp)
    rows[leader.codes] = np.arange(len(leader.codes))
    return rows


def _led(leader: Coded, followers: Mapping[str, Sequence[Any]]) -> Cut:
    """The leader's column, and those that follow it: most messages are of the same few servers."""
    known: dict[bytes, tuple[bytes, bytes]] = {}
    start_of = b',"%b":{"values":' % _LEADER.encode()

    def columns_of(used: list[int]) -> tuple[bytes, bytes]:
        columns: dict[str, Any] = {}
        for name, texts in followers.items():
            own = [texts[n] for n in used]
            alike = own.count(own[0]) == len(own)
            columns[name] = own[0] if alike else {"values": own, "codes": _LEADER}
        rest = _json(columns)[1:-1]
        return _json([leader.values[n] for n in used]), b"," + rest if rest else b""

    def cut(start: int, stop: int) -> Sequence[Piece]:
        used, own = used_codes(leader.codes[start:stop], len(leader.values))
        key = used.tobytes()
        if key not in known:
            known[key] = columns_of(used.tolist())
        values, rest = known[key]
        return start_of, values, b',"codes":', _numbers(own), b"}", rest

    return cut


def _few(name: str, column: Coded) -> Cut:
    """With the values alone that are used: the others are other tenants'."""
    texts = _texts(name, column.values)

    def cut(start: int, stop: int) -> Sequence[Piece]:
        used, own = used_codes(column.codes[start:stop], len(texts))
        if len(used) == 1:
            return (_json(texts[used[0]]),)
        values = _json([texts[n] for n in used.tolist()])
        return b'{"values":', values, b',"codes":', _numbers(own), b"}"

    return cut


def _each(name: str, column: Column) -> Cut:
    if name in MONEY and isinstance(column, Ints):
        rows = dollar_rows(column)
        if rows is not None:
            return lambda start, stop: (b"[", rows[start:stop].reshape(-1)[:-1].data, b"]")
    elif isinstance(column, Ints) and column.known is None and column.values.dtype != object:
        numbers = np.ascontiguousarray(column.values)
        return lambda start, stop: (_numbers(numbers[start:stop]),)
    elif not isinstance(column, Ints | Coded):
        return column.json
    values = _values(name, column)
    return lambda start, stop: (_json(values[start:stop]),)


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

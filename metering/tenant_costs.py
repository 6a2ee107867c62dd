"""What ``cost.requests.v1`` carries: lines of one tenant, column by column."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, create_model
from pydantic_core import to_json

from metering.columns import Coded, Column, Ints, constant
from metering.costs import CostLine
from metering.lines import MONEY, CostLines, by_tenant
from metering.money import ATTO_PER_USD
from metering.usage import Frozen, Name

MAX_LINES = 500
"""In a message. With the longest names it has some 8 MB, else a tenth of that."""
_FIRST = np.array([0])
_NAMES = tuple(n for n in CostLine.model_fields if n != "tenant")


class Dictionary(BaseModel):
    """A column of few values: line ``n`` has ``values[codes[n]]``."""

    values: list[Any]
    codes: list[int]


def _any_of_three(name: str) -> Any:
    """The type of a line's field, a list of it, or a dictionary."""
    annotation = CostLine.model_fields[name].rebuild_annotation()
    return annotation | list[annotation] | Dictionary  # type: ignore[valid-type]  # at run time


TenantCosts = create_model(
    "TenantCosts",
    __base__=Frozen,
    __doc__="""Some of a tenant's requests, priced.

    The fields are those of a line (``CostLine``). Each is one value that all of the ``lines``
    have, or a list with an entry for each, or an object with the few ``values`` that there are and
    ``codes``, an entry for each line that points into them. A line is identified by its ``source``,
    ``sequence`` and ``position``: one that comes again, in another message too, is the same line.
    """,
    tenant=(Name, ...),
    lines=(int, Field(ge=1)),
    **{name: (_any_of_three(name), ...) for name in _NAMES},  # type: ignore[call-overload]  # fields by name
)


def tenant_values(lines: CostLines) -> Iterator[tuple[str, bytes]]:
    """(tenant, message) for each tenant, several where it has many lines; they keep their order."""
    if lines.count == 0:
        return
    ordered, places = by_tenant(lines)
    same: dict[str, Any] = {}
    few: dict[str, tuple[list[Any], list[int]]] = {}
    each: dict[str, list[Any]] = {}
    for name in _NAMES:
        column = ordered.columns[name]
        if constant(column):
            same[name] = _values(name, column.take(_FIRST))[0]
        elif isinstance(column, Coded):
            few[name] = _texts(name, column.values), column.codes.tolist()
        else:
            each[name] = _values(name, column)
    for tenant, first, end in places:
        for start in range(first, end, MAX_LINES):
            stop = min(end, start + MAX_LINES)
            document = {"tenant": tenant, "lines": stop - start, **same}
            for name, values in each.items():
                document[name] = values[start:stop]
            for name, (values, codes) in few.items():
                document[name] = _dictionary(values, codes[start:stop])
            yield tenant, to_json(document)


def _dictionary(values: list[Any], codes: list[int]) -> dict[str, list[Any]]:
    """With the values alone that are used."""
    used = sorted(set(codes))
    if len(used) == len(values):
        return {"values": values, "codes": codes}
    places = dict(zip(used, range(len(used)), strict=True))
    return {"values": [values[n] for n in used], "codes": [places[c] for c in codes]}


def lines_in(value: bytes) -> list[CostLine]:
    """The message's lines, each as an object.

    Raises:
        ValueError: it is no such message.
    """
    document: Mapping[str, Any] = json.loads(value)
    count = document["lines"]
    spread = {name: _spread(document[name], count) for name in ("tenant", *_NAMES)}
    rows = zip(*spread.values(), strict=True)
    return [CostLine.model_validate(dict(zip(spread, row, strict=True))) for row in rows]


def _spread(column: Any, count: int) -> list[Any]:
    if isinstance(column, dict):
        return [column["values"][code] for code in column["codes"]]
    return column if isinstance(column, list) else [column] * count


def _values(name: str, column: Column) -> list[Any]:
    if name in MONEY and isinstance(column, Ints):
        return _dollars(column)
    if isinstance(column, Coded):
        return Coded(_texts(name, column.values), column.codes).tolist()
    return column.tolist()


def _texts(name: str, values: Sequence[Any]) -> list[Any]:
    if name == "usd_per_gpu_hour":
        return [None if price is None else f"{price:f}" for price in values]
    return list(values)


def _dollars(column: Ints) -> list[str | None]:
    values = column.values
    texts: list[str | None]
    if values.dtype != object and int(values.max()) < ATTO_PER_USD:
        texts = [f"0.{atto:018d}" for atto in values.tolist()]
    else:
        texts = [f"{a // ATTO_PER_USD}.{a % ATTO_PER_USD:018d}" for a in values.tolist()]
    if column.known is not None:
        for n in np.flatnonzero(~column.known).tolist():
            texts[n] = None
    return texts

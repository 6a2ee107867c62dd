"""What ``cost.requests.v1`` carries: lines of one tenant, column by column."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from pydantic import Field, create_model
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


def _either(name: str) -> Any:
    """The type of a line's field, or a list of it."""
    annotation = CostLine.model_fields[name].rebuild_annotation()
    return annotation | list[annotation]  # type: ignore[valid-type]  # it is one at run time


TenantCosts = create_model(
    "TenantCosts",
    __base__=Frozen,
    __doc__="""Some of a tenant's requests, priced.

    The fields are those of a line (``CostLine``). Each is a list with an entry for each of the
    ``lines``, or one value that all of them have. A line is identified by its ``source``,
    ``sequence`` and ``position``: one that comes again, in another message too, is the same line.
    """,
    tenant=(Name, ...),
    lines=(int, Field(ge=1)),
    **{name: (_either(name), ...) for name in _NAMES},  # type: ignore[call-overload]  # fields by name
)


def tenant_values(lines: CostLines) -> Iterator[tuple[str, bytes]]:
    """(tenant, message) for each tenant, several where it has many lines; they keep their order."""
    if lines.count == 0:
        return
    ordered, places = by_tenant(lines)
    same: dict[str, Any] = {}
    varying: dict[str, list[Any]] = {}
    for name in _NAMES:
        if constant(ordered.columns[name]):
            same[name] = _values(name, ordered.columns[name].take(_FIRST))[0]
        else:
            varying[name] = _values(name, ordered.columns[name])
    for tenant, first, end in places:
        for start in range(first, end, MAX_LINES):
            stop = min(end, start + MAX_LINES)
            own = {name: values[start:stop] for name, values in varying.items()}
            yield tenant, to_json({"tenant": tenant, "lines": stop - start, **same, **own})


def lines_in(value: bytes) -> list[CostLine]:
    """The message's lines, each as an object.

    Raises:
        ValueError: it is no such message.
    """
    document: Mapping[str, Any] = json.loads(value)
    count = document["lines"]
    spread = {
        name: document[name] if isinstance(document[name], list) else [document[name]] * count
        for name in ("tenant", *_NAMES)
    }
    rows = zip(*spread.values(), strict=True)
    return [CostLine.model_validate(dict(zip(spread, row, strict=True))) for row in rows]


def _values(name: str, column: Column) -> list[Any]:
    if name in MONEY and isinstance(column, Ints):
        return _dollars(column)
    if name == "usd_per_gpu_hour" and isinstance(column, Coded):
        texts = [None if price is None else f"{price:f}" for price in column.values]
        return Coded(texts, column.codes).tolist()
    return column.tolist()


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

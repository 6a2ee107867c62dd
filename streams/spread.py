"""Columns of a message back to rows, apart from the code that wrote them: for audits.

A column is a list with an entry for each row, one value that all rows have, or an object with few
``values`` and each row's place among them (``codes``), or the name of the column that has the same
places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def spread(columns: Mapping[str, Any], count: int, names: Sequence[str]) -> Iterator[list[Any]]:
    """For each row its values of ``names``.

    Raises:
        KeyError, ValueError: a column is missing, or has another length.
    """
    lists = [_rows(columns, name, count) for name in names]
    for row in zip(range(count), *lists, strict=True):
        yield list(row[1:])


def _rows(columns: Mapping[str, Any], name: str, count: int) -> list[Any]:
    column = columns[name]
    if isinstance(column, dict):
        codes = column["codes"]
        if isinstance(codes, str):
            codes = columns[codes]["codes"]
        return [column["values"][code] for code in codes]
    return column if isinstance(column, list) else [column] * count


def requests_in(batch: Mapping[str, Any], names: Sequence[str]) -> list[list[Any]]:
    """Of a usage event in either form: its requests' values of ``names``, with ``tenant``."""
    requests = batch["requests"]
    if isinstance(requests, list):
        return [[r[name] for name in names] for r in requests]
    count = len(requests["request_id"])
    payers = [payer for (payer,) in spread(requests, count, ["payer"])]
    tenants = [requests["payers"][payer][0] for payer in payers]
    return list(spread({**requests, "tenant": tenants}, count, names))


def lines_in(message: Mapping[str, Any], names: Sequence[str]) -> list[list[Any]]:
    """Of a message of ``cost.requests.v1``."""
    return list(spread(message, message["lines"], names))

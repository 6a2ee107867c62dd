"""Writes of lines, windows and anomalies: few inserts, whole columns.

Every table is keyed by the identity of what it holds, so that a write that is repeated, whole or
in part, changes nothing. Whoever calls keeps the rows until the call has returned.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

from metering.costs import Anomaly
from metering.errors import SinkUnavailable
from metering.lines import CostLines
from metering.window_rows import WindowRows
from sinks.clickhouse.arrow import table_of_all
from sinks.clickhouse.arrow_body import ArrowBody
from sinks.clickhouse.connection import ClickHouseError, ClickHouseTarget, Client, connect
from sinks.clickhouse.reasons import reason_of
from sinks.clickhouse.window_table import window_table

_SETTINGS = {"max_partitions_per_insert_block": 0}
"""Events may be from any month since 1970: an insert that is refused for that would be for ever."""

ENOUGH = 30_000
"""Lines, for an insert: to make one table of more parts costs more than one more insert."""
Column = tuple[str, list[Any]]
Row = TypeVar("Row")


class ClickHouseWriter:
    """Keeps one connection and makes a new one after a failure. Not for several threads at once."""

    def __init__(self, target: ClickHouseTarget) -> None:
        self._target = target
        self._client: Client | None = None
        self._body = ArrowBody()

    def write_lines(self, lines: CostLines) -> None:
        self.write_all_lines([lines])

    def write_all_lines(self, parts: Sequence[CostLines]) -> None:
        """In one insert, in Arrow: there are many. More than ``ENOUGH`` go in several."""
        for some in _together(parts):
            self._insert_arrow("cost_request_lines", table_of_all(some))

    def write_windows(self, *parts: WindowRows) -> None:
        """In one insert, in Arrow."""
        if any(parts):
            self._insert_arrow("cost_window_rows", window_table(*filter(None, parts)))

    def write_anomalies(self, anomalies: Sequence[Anomaly]) -> None:
        self._insert("cost_anomaly_rows", anomalies, _anomaly_columns)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _insert_arrow(self, name: str, table: Any) -> None:
        """As ``_insert``."""

        def insert(client: Client, name: str) -> None:
            body: Any = self._body.of(table, client.write_compression)
            client.raw_insert(name, table.column_names, body, _SETTINGS, "Arrow")

        self._send(name, table.num_rows, insert)

    def _insert(
        self, table: str, rows: Sequence[Row], columns: Callable[[Sequence[Row]], list[Column]]
    ) -> None:
        """Raises SinkUnavailable: none, some or all of the rows were written; write them again."""
        if not rows:
            return
        named = columns(rows)

        def insert(client: Client, name: str) -> None:
            client.insert(
                name,
                [values for _, values in named],
                column_names=[column for column, _ in named],
                column_oriented=True,
                settings=_SETTINGS,
            )

        self._send(table, len(rows), insert)

    def _send(self, table: str, rows: int, insert: Callable[[Client, str], object]) -> None:
        try:
            if self._client is None:
                self._client = connect(self._target)
            insert(self._client, table)
        except (ClickHouseError, OSError) as exc:
            self.close()
            raise SinkUnavailable(f"ClickHouse table {table}", rows, reason_of(exc)) from exc


def _together(parts: Sequence[CostLines]) -> Iterator[list[CostLines]]:
    """Parts in their order, in groups of which each but the last has enough lines."""
    some: list[CostLines] = []
    for lines in parts:
        if lines.count:
            some.append(lines)
        if sum(each.count for each in some) >= ENOUGH:
            yield some
            some = []
    if some:
        yield some


def _anomaly_columns(anomalies: Sequence[Anomaly]) -> list[Column]:
    tops = [a.causes[0] if a.causes else None for a in anomalies]
    same = (
        "anomaly_id", "window_seconds", "tenant", "model", "region", "score", "score_unit",
        "threshold", "expected_usd", "observed_usd", "usd_per_hour",
    )  # fmt: skip
    return [
        ("window_start", [_utc(a.window_start_ms) for a in anomalies]),
        *((name, [getattr(a, name) for a in anomalies]) for name in same),
        ("driver", ["" if top is None else top.driver for top in tops]),
        ("slice", [{} if top is None else top.slice for top in tops]),
        ("share", [0.0 if top is None else top.share for top in tops]),
        ("lever", ["" if top is None else top.lever for top in tops]),
        ("causes", [_as_json([c.model_dump() for c in a.causes]) for a in anomalies]),
    ]


def _utc(epoch_ms: int) -> datetime:
    seconds, ms = divmod(epoch_ms, 1000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=ms * 1000)


def _as_json(value: object) -> str:
    def plain(item: object) -> str:
        if isinstance(item, Decimal):
            return f"{item:f}"
        raise TypeError(f"{type(item).__name__} in an anomaly's causes")

    return json.dumps(value, default=plain, ensure_ascii=False)

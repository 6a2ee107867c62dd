"""The questions that the project itself asks of ClickHouse. Values go in as parameters."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from metering.errors import QueryFailed
from metering.money import quotient
from sinks.clickhouse.connection import ClickHouseError, ClickHouseTarget, Client, connect
from sinks.clickhouse.reasons import reason_of


@dataclass(frozen=True, slots=True)
class Stored:
    """Lines of one run: counts and sums, each line once."""

    requests: int
    input_tokens: int
    output_tokens: int
    unpriced: int


@dataclass(frozen=True, slots=True)
class UnitCost:
    """What a cohort's tokens and requests cost; ``None`` where there were none or no price."""

    tenant: str
    model: str
    requests: int
    input_tokens: int
    output_tokens: int
    gpu_seconds: float
    mean_batch_size: float
    cost_usd: Decimal
    usd_per_million_input_tokens: Decimal | None
    usd_per_million_output_tokens: Decimal | None
    usd_per_request: Decimal | None
    requests_by_default_weights: int = 0
    """Whose GPU time no measured coefficient has told apart into input and output."""


# Sums of tokens may leave 64 bits, and a cost times a million a Decimal(38, 18): so quotients are
# divided here.
_UNIT_COSTS = """
SELECT tenant, model, count() AS requests,
    sum(toUInt128(input_tokens)), sum(toUInt128(output_tokens)), sum(toFloat64(gpu_ns)) / 1e9,
    avg(batch_size),
    ifNull(sum(cost_usd), 0) AS cost, ifNull(sum(input_cost_usd), 0),
    ifNull(sum(output_cost_usd), 0),
    countIf(cost_usd IS NOT NULL), sumIf(toUInt128(input_tokens), cost_usd IS NOT NULL),
    sumIf(toUInt128(output_tokens), cost_usd IS NOT NULL),
    countIf(endsWith(apportionment_rule, '@default'))
FROM cost_requests
WHERE startsWith(request_id, {prefix:String}) AND time >= fromUnixTimestamp64Milli({since_ms:Int64})
GROUP BY tenant, model
ORDER BY cost DESC, tenant, model
"""
# With FINAL, ClickHouse filters by the sorting key before it reads other columns only if told to.
# It halves the time for the last minutes of a month; where all lines are read it only costs time.
_LATELY = "SETTINGS optimize_move_to_prewhere_if_final = 1"


def _unit_cost(row: tuple[Any, ...]) -> UnitCost:
    cost, input_cost, output_cost, priced, input_tokens, output_tokens, by_default = row[7:]
    quotients = [
        quotient(input_cost, input_tokens, 10**6),
        quotient(output_cost, output_tokens, 10**6),
        quotient(cost, priced),
    ]
    values: list[Any] = [*row[:8], *quotients, by_default]
    return UnitCost(*values)


@dataclass(frozen=True, slots=True)
class Unpriced:
    """Usage without a price: the price book has none for this accelerator in this region."""

    tenant: str
    model: str
    accelerator: str
    region: str
    requests: int
    gpu_seconds: float


_UNPRICED = """
SELECT tenant, model, accelerator, region, count() AS requests, sum(gpu_ns) / 1e9 AS gpu_seconds
FROM cost_requests
WHERE pricing_status != 'priced' AND time >= fromUnixTimestamp64Milli({since_ms:Int64})
GROUP BY tenant, model, accelerator, region
ORDER BY gpu_seconds DESC, tenant, model, accelerator, region
"""


class ClickHouseReader:
    """One connection for questions. Errors of ClickHouse come as QueryFailed."""

    def __init__(self, target: ClickHouseTarget) -> None:
        self._target = target
        self._client: Client = connect(target)

    def close(self) -> None:
        self._client.close()

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        try:
            found = self._client.query(sql, parameters=parameters or {}).result_rows
        except (ClickHouseError, OSError) as exc:
            raise QueryFailed(f"ClickHouse at {self._target.url}: {reason_of(exc)}") from exc
        return [tuple(row) for row in found]

    def raw(self, sql: str, output_format: str) -> bytes:
        """The answer as ClickHouse writes it, in ``output_format`` where the statement names none.

        The format goes in a header: behind the statement it would show in errors of syntax.
        """
        try:
            answer = self._client.raw_query(
                sql, transport_settings={"X-ClickHouse-Format": output_format}
            )
        except (ClickHouseError, OSError) as exc:
            raise QueryFailed(f"ClickHouse at {self._target.url}: {reason_of(exc)}") from exc
        return answer if isinstance(answer, bytes) else str(answer).encode()

    def stored(self, prefix: str) -> Stored:
        """Lines whose request id begins with ``prefix``."""
        row = self.rows(
            "SELECT count(), sum(input_tokens), sum(output_tokens), "
            "countIf(pricing_status != 'priced') "
            "FROM cost_requests WHERE startsWith(request_id, {prefix:String})",
            {"prefix": prefix},
        )[0]
        return Stored(*row)

    def unit_costs(self, prefix: str = "", since_ms: int = 0) -> list[UnitCost]:
        """Per tenant and model, the dearest first."""
        parameters = {"prefix": prefix, "since_ms": since_ms}
        sql = _UNIT_COSTS + _LATELY if since_ms > 0 else _UNIT_COSTS
        return [_unit_cost(row) for row in self.rows(sql, parameters)]

    def unpriced(self, since_ms: int = 0) -> list[Unpriced]:
        """What has no price, by what a price would have to be for; the most GPU time first."""
        return [Unpriced(*row) for row in self.rows(_UNPRICED, {"since_ms": since_ms})]

    def requests_in_open_windows(self, since_ms: int) -> int:
        """Stored requests that no final 10 s window has counted yet; ``since_ms`` is rounded down
        to the start of a window."""
        row = self.rows(
            "WITH fromUnixTimestamp64Milli({since_ms:Int64}) AS since "
            "SELECT (SELECT count() FROM cost_requests WHERE time >= since), "
            "(SELECT sum(requests) FROM cost_windows "
            "WHERE final AND window_seconds = 10 AND window_start >= since)",
            {"since_ms": since_ms // 10_000 * 10_000},
        )[0]
        return int(row[0]) - int(row[1])

"""Fills a database with 30 days of lines, and with the windows that they add up to, in SQL.

The lines come in bursts: eight requests of one cohort within 10 s. So there is a row of a window
for about four lines. One line in 50 has no price. Windows are summed from the stored lines, as the
worker sums them: what the views answer must equal what the lines say, to the attodollar.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.report import Say
from sinks.clickhouse.connection import Client

DAYS = 30
FRESH_PARTS = 8
DAYS_AT_A_TIME = 3
_CHUNK_LINES = 1_000_000
_BURST_LINES = 8
_SHORTEST_S = 10

_LINES = """
INSERT INTO cost_request_lines
    (time, source, sequence, position, boot_id, request_id, tenant, team, project, user,
     identity_source, region, deployment, model, model_version, instance, accelerator, speedup,
     operation, status, rows, batch_size, batch_wall_ns, input_tokens, cached_input_tokens,
     output_tokens, reasoning_tokens, queue_ns, gpu_ns, input_gpu_ns, output_gpu_ns,
     apportionment_rule, pricing_status, price_id, usd_per_gpu_hour,
     cost_usd, input_cost_usd, output_cost_usd)
WITH
    intDiv(number, {burst_lines:UInt64}) AS burst,
    intDiv(burst * {slots:UInt64}, {bursts:UInt64}) AS slot,
    cityHash64(burst, {seed:UInt64}) AS b,
    cityHash64(number, {seed:UInt64}) AS n,
    toUInt64(24 * pow(b % 1000 / 1000, 2)) AS tenant_number,
    toUInt64(6 * pow(intDiv(b, 1000) % 1000 / 1000, 1.5)) AS model_number,
    intDiv(b, 1000000) % 2 AS region_number,
    n % 50 != 0 AND tenant_number != 23 AS is_priced,
    toDecimal128('0.000000000000694444', 18) AS usd_per_ns,
    20 + n % 1500 AS tokens_in,
    1 + intDiv(n, 1500) % 700 AS tokens_out,
    tokens_in * (3000 + n % 97) AS ns_in,
    tokens_out * (90000 + n % 991) AS ns_out
SELECT
    fromUnixTimestamp64Nano({begin_s:Int64} * 1000000000
        + toInt64(slot * 10000000000 + b % 9000000000 + n % 1000000000)),
    concat('triton-', toString(region_number), '/5c1f7a3e/', toString(b % 4), '/model_',
        toString(model_number)),
    burst, number % {burst_lines:UInt64}, '5c1f7a3e', lower(hex(n)),
    concat('tenant-', toString(tenant_number)), concat('team-', toString(n % 5)), 'default',
    concat('user-', toString(n % 5000)), 'header',
    if(region_number = 0, 'eu-west', 'us-east'), 'production',
    concat('model_', toString(model_number)), '1', concat('instance-', toString(b % 4)),
    'NVIDIA H100', 1, 'chat', 'ok', 1, {burst_lines:UInt64}, ns_in + ns_out,
    tokens_in, intDiv(tokens_in, 4), tokens_out, 0, n % 50000000, ns_in + ns_out, ns_in, ns_out,
    'linear', if(is_priced, 'priced', 'unpriced'), if(is_priced, 'h100', ''),
    if(is_priced, toDecimal64('2.5', 9), NULL),
    if(is_priced, usd_per_ns * (ns_in + ns_out), NULL),
    if(is_priced, usd_per_ns * ns_in, NULL),
    if(is_priced, usd_per_ns * ns_out, NULL)
FROM numbers({first:UInt64}, {count:UInt64})
"""

# Of every length, those that end after `changed_s`; all cohorts of each, in one insert. Quotients
# as the worker's: 18 decimals, nothing where there is nothing to divide by.
_WINDOWS = """
INSERT INTO cost_window_rows
    (window_start, window_seconds, tenant, model, region, final, counted_to, version,
     requests, retries, unpriced_requests, batch_size_sum, input_tokens, cached_input_tokens,
     output_tokens, gpu_ns, input_gpu_ns, output_gpu_ns,
     priced_requests, priced_input_tokens, priced_output_tokens,
     cost_usd, input_cost_usd, output_cost_usd,
     usd_per_million_input_tokens, usd_per_million_output_tokens, usd_per_request)
WITH arrayJoin([10, 60, 3600, 86400]::Array(UInt32)) AS seconds,
    intDiv(toUnixTimestamp(time), seconds) * seconds AS start_s
SELECT
    toDateTime64(start_s, 3, 'UTC'),
    seconds, tenant, model, region, {final:Bool}, {counted_to:UInt64},
    2 * {counted_to:UInt64} + {final:Bool},
    count(), 0, countIf(pricing_status != 'priced') AS unpriced, sum(batch_size),
    sum(l.input_tokens), sum(l.cached_input_tokens),
    sum(l.output_tokens), sum(l.gpu_ns), sum(l.input_gpu_ns), sum(l.output_gpu_ns),
    count() - unpriced AS priced, sumIf(l.input_tokens, pricing_status = 'priced') AS priced_in,
    sumIf(l.output_tokens, pricing_status = 'priced') AS priced_out,
    ifNull(sum(l.cost_usd), 0) AS cost, ifNull(sum(l.input_cost_usd), 0) AS cost_in,
    ifNull(sum(l.output_cost_usd), 0) AS cost_out,
    if(priced_in = 0, NULL, cost_in * 1000000 / priced_in),
    if(priced_out = 0, NULL, cost_out * 1000000 / priced_out),
    if(priced = 0, NULL, cost / priced)
FROM cost_requests AS l
WHERE time >= fromUnixTimestamp64Second({since_s:Int64})
    AND time < fromUnixTimestamp64Second({until_s:Int64})
    AND start_s + seconds > {changed_s:Int64}
GROUP BY start_s, seconds, tenant, model, region
"""

_ANOMALIES = """
INSERT INTO cost_anomaly_rows
    (anomaly_id, window_start, window_seconds, tenant, model, region, score, score_unit, threshold,
     expected_usd, observed_usd, usd_per_hour, driver, slice, share, lever, causes)
SELECT toString(number), toDateTime64({begin_s:Int64} + number * 600, 3, 'UTC'), 60,
    concat('tenant-', toString(number % 24)), concat('model_', toString(number % 6)), 'eu-west',
    5.5, 'standard deviations', 5, 1, 2, 3.5, 'input_length',
    map('tenant', concat('tenant-', toString(number % 24))), 0.875, 'input_length', '[]'
FROM numbers({days:UInt64} * 144)
"""


@dataclass(frozen=True, slots=True)
class Month:
    """``lines`` of the 30 days from ``begin_s``, which is the start of a day. The last
    ``fresh_lines`` are left for ``fresh_parts``."""

    lines: int
    begin_s: int
    fresh_lines: int
    seed: int = 1

    @property
    def end_s(self) -> int:
        return self.begin_s + DAYS * 86_400


@dataclass(frozen=True, slots=True)
class Told:
    """Windows within whole days, those that end after ``changed_s``. A row with a higher
    ``counted_to`` replaces one with a lower."""

    since_s: int
    until_s: int
    counted_to: int
    changed_s: int = 0
    final: bool = True


def fill(client: Client, month: Month, say: Say) -> None:
    """In the order of time, as a worker writes; ClickHouse merges as it does."""
    before = month.lines - month.fresh_lines
    for first in range(0, before, _CHUNK_LINES):
        count = min(_CHUNK_LINES, before - first)
        add_lines(client, month, first, count)
        say(f"{first + count:,} of {month.lines:,} lines")
    for day in range(0, DAYS, DAYS_AT_A_TIME):
        since_s = month.begin_s + day * 86_400
        until_s = since_s + DAYS_AT_A_TIME * 86_400
        tell_windows(client, Told(since_s, until_s, counted_to=day))
        say(f"the windows of {day + DAYS_AT_A_TIME} of {DAYS} days")
    client.command(_ANOMALIES, parameters={"begin_s": month.begin_s, "days": DAYS})


def fresh_parts(client: Client, month: Month) -> Iterator[int]:
    """Insert the last lines in eight inserts, and after each the windows that it has changed:
    provisional rows, which replace the earlier ones of the hour and the day."""
    each = month.fresh_lines // FRESH_PARTS
    for part in range(FRESH_PARTS):
        first = month.lines - month.fresh_lines + part * each
        add_lines(client, month, first, each)
        begun_s = month.begin_s + first * DAYS * 86_400 // month.lines - 2 * _SHORTEST_S
        since_s = begun_s - begun_s % 86_400
        told = Told(since_s, month.end_s, DAYS + part, begun_s, final=False)
        tell_windows(client, told)
        yield part + 1


def add_lines(client: Client, month: Month, first: int, count: int) -> None:
    """Lines ``first`` to ``first + count - 1`` of the month; the same ones each time."""
    given = {
        "burst_lines": _BURST_LINES,
        "slots": DAYS * 86_400 // _SHORTEST_S,
        "bursts": month.lines // _BURST_LINES,
        "seed": month.seed,
        "begin_s": month.begin_s,
        "first": first,
        "count": count,
    }
    client.command(_LINES, parameters=given)


def tell_windows(client: Client, told: Told) -> None:
    """Insert the rows of windows as the stored lines of the time say, of all lengths at once."""
    given = {
        "since_s": told.since_s,
        "until_s": told.until_s,
        "changed_s": told.changed_s,
        "counted_to": told.counted_to,
        "final": told.final,
    }
    client.command(_WINDOWS, parameters=given)

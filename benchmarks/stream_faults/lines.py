"""Do ClickHouse's lines equal what was emitted, each once, in every field that costs depend on?"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from benchmarks.stream_faults.expected import Expected
from benchmarks.stream_faults.journal import FAILED, Array
from benchmarks.stream_faults.world import BATCH_SIZE, TENANTS, price_id
from sinks.clickhouse.queries import ClickHouseReader

NAME_BYTES = 48
STORED = np.dtype([
    ("source", f"S{NAME_BYTES}"), ("sequence", "<u8"), ("position", "<u4"), ("time_ns", "<i8"),
    ("model", f"S{NAME_BYTES}"), ("region", f"S{NAME_BYTES}"), ("accelerator", f"S{NAME_BYTES}"),
    ("status", f"S{NAME_BYTES}"), ("price_id", f"S{NAME_BYTES}"), ("sound", "u1"),
    ("priced", "u1"), ("batch_size", "<u4"), ("input_tokens", "<u8"), ("output_tokens", "<u8"),
    ("gpu_ns", "<u8"), ("input_gpu_ns", "<u8"), ("output_gpu_ns", "<u8"),
    ("cost", "<i8"), ("cost_high", "<i8"), ("input_cost", "<i8"), ("input_cost_high", "<i8"),
    ("output_cost", "<i8"), ("output_cost_high", "<i8"),
])  # fmt: skip
"""A row of :data:`SQL` in ClickHouse's RowBinary: a decimal is 128 bits, here in two halves."""
_NAMES = ("model", "region", "accelerator", "status", "price_id")
SQL = f"""
SELECT toFixedString(toString(source), {NAME_BYTES}), sequence, position,
    toUnixTimestamp64Nano(time),
    {", ".join(f"toFixedString(toString({name}), {NAME_BYTES})" for name in _NAMES)},
    toUInt8(request_id = concat(toString(source), '#', toString(sequence), '/', toString(position))
        AND executed AND rows = 1 AND cached_input_tokens = 0 AND reasoning_tokens = 0
        AND padding_gpu_ns = 0 AND retry_of IS NULL
        AND isNull(cost_usd) = isNull(input_cost_usd) AND isNull(cost_usd) = isNull(output_cost_usd)
        AND isNull(cost_usd) = isNull(usd_per_gpu_hour)
        AND (pricing_status = 'priced') = isNotNull(cost_usd)),
    toUInt8(isNotNull(cost_usd)), batch_size, input_tokens, output_tokens,
    gpu_ns, input_gpu_ns, output_gpu_ns,
    ifNull(cost_usd, toDecimal128(0, 18)), ifNull(input_cost_usd, toDecimal128(0, 18)),
    ifNull(output_cost_usd, toDecimal128(0, 18))
FROM cost_requests WHERE tenant = '%s' ORDER BY source, sequence, position
"""  # noqa: S608  # names of our own
MOST_EXAMPLES = 10


@dataclass(slots=True)
class Lines:
    stored: int = 0
    missing: int = 0
    unknown: int = 0
    twice: int = 0
    wrong: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        return not (self.missing or self.unknown or self.twice or self.wrong)


def check_lines(reader: ClickHouseReader, expected: Expected) -> Lines:
    """A tenant at a time.

    Raises:
        QueryFailed: ClickHouse does not answer.
    """
    found = Lines()
    rows = reader.rows("SELECT DISTINCT toString(tenant) FROM cost_requests")
    for tenant in sorted({row[0] for row in rows} - set(TENANTS)):
        found.unknown += 1
        found.examples.append(f"a tenant that nobody is: {tenant}")
    for number, tenant in enumerate(TENANTS):
        stored = np.frombuffer(reader.raw(SQL % tenant, "RowBinary"), STORED)
        compare(found, stored, wanted(expected, number), tenant)
    del found.examples[MOST_EXAMPLES:]
    return found


def wanted(expected: Expected, tenant: int) -> Array:
    """The rows of a tenant as they must be stored, in the order of :data:`SQL`."""
    own = np.flatnonzero(expected.emitted.requests["tenant"] == tenant)
    batches = expected.emitted.batches[own // BATCH_SIZE]
    requests = expected.emitted.requests[own]
    sources = expected.emitted.sources
    changed = batches["end_ns"] >= expected.emitted.change_s * 10**9
    rows = np.zeros(len(own), STORED)

    def named(values: list[str]) -> Array:
        found: Array = np.array([v.encode() for v in values], f"S{NAME_BYTES}")[batches["source"]]
        return found

    rows["source"] = named([s.name for s in sources])
    rows["model"] = named([s.model for s in sources])
    rows["region"] = named([s.region for s in sources])
    rows["accelerator"] = named([s.accelerator for s in sources])
    rows["price_id"] = np.where(
        changed,
        named([price_id(s.model, s.region, True) for s in sources]),
        named([price_id(s.model, s.region, False) for s in sources]),
    )
    rows["status"] = np.where(batches["flags"] & FAILED, b"error", b"ok")
    rows["sequence"], rows["time_ns"] = batches["sequence"], batches["end_ns"]
    rows["position"] = own % BATCH_SIZE
    rows["sound"] = 1
    rows["batch_size"] = BATCH_SIZE
    rows["input_tokens"], rows["output_tokens"] = (
        requests["input_tokens"], requests["output_tokens"],
    )  # fmt: skip
    rows["priced"] = expected.priced[own]
    rows["gpu_ns"], rows["input_gpu_ns"] = expected.gpu_ns[own], expected.input_gpu_ns[own]
    rows["output_gpu_ns"] = expected.gpu_ns[own] - expected.input_gpu_ns[own]
    rows["cost"], rows["input_cost"] = expected.cost[own], expected.input_cost[own]
    rows["output_cost"] = expected.cost[own] - expected.input_cost[own]
    order = np.lexsort((rows["position"], rows["sequence"], rows["source"]))
    return np.take(rows, order)


def compare(found: Lines, stored: Array, want: Array, tenant: str) -> None:
    """Both in the order of source, sequence and position."""
    found.stored += len(stored)
    if len(stored) == len(want) and stored.tobytes() == want.tobytes():
        return
    told: dict[tuple[bytes, int, int], Array] = {}
    for row in stored:
        key = _key(row)
        if key in told:
            found.twice += 1
            _example(found, f"twice: {tenant} {key}")
        told[key] = row
    for row in want:
        there = told.pop(_key(row), None)
        if there is None:
            found.missing += 1
            _example(found, f"missing: {tenant} {row}")
        elif there.tobytes() != row.tobytes():
            found.wrong += 1
            _example(found, f"wrong: {tenant} {there}, not {row}")
    found.unknown += len(told)
    for key in told:
        _example(found, f"nobody's: {tenant} {key}")


def _key(row: Array) -> tuple[bytes, int, int]:
    return bytes(row["source"]), int(row["sequence"]), int(row["position"])


def _example(found: Lines, text: str) -> None:
    if len(found.examples) < MOST_EXAMPLES:
        found.examples.append(text)

"""How many of everything at a rate of requests.

From measured constants where there is a measurement (``build/results``, else the figures below with
their source) and named assumptions where there is none. Pure but for reading those files.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

from streams.stack.places import REPO

RESULTS = REPO / "build" / "results"
DAY_S = 86_400
RATES = (10**4, 10**5, 10**6, 10**7)


@dataclass(frozen=True, slots=True)
class Measured:
    """Defaults: on a virtual machine of two cores (AMD EPYC), in batches of 32."""

    # make bench-stream, five rounds
    worker_requests_per_s: float = 113_408
    """Of one worker in wall time, waiting for Kafka and ClickHouse included."""
    worker_requests_per_cpu_s: float = 303_126
    worker_requests_per_cpu_s_single: float = 33_603
    """In batches of one request."""
    # make bench-sizes
    usage_bytes_per_request: float = 41.8
    cost_bytes_per_request: float = 74.0
    window_bytes_per_row: float = 225.0
    stored_bytes_per_request: float = 97.3
    stored_bytes_per_window_row: float = 241.2
    insert_and_merge_us_per_line: float = 6.54
    small_insert_cpu_ms: float = 16.6
    """Of an insert of 256 lines, merges included."""


SOURCES = {
    "worker_requests_per_s": ("bench_stream.json", "worker_32_wall"),
    "worker_requests_per_cpu_s": ("bench_stream.json", "worker_32"),
    "worker_requests_per_cpu_s_single": ("bench_stream.json", "worker_1"),
    **{
        name: ("bench_sizes.json", name)
        for name in (
            "usage_bytes_per_request",
            "cost_bytes_per_request",
            "window_bytes_per_row",
            "stored_bytes_per_request",
            "stored_bytes_per_window_row",
            "insert_and_merge_us_per_line",
            "small_insert_cpu_ms",
        )
    },
}


@dataclass(frozen=True, slots=True)
class Assumed:
    """What nobody has measured here, and what is a choice."""

    load: float = 0.5
    """Of what a worker or a ClickHouse core can do; the rest is for catching up."""
    batch_size: int = 32
    take_s: float = 0.1
    """A take ends after this long, or when it is full."""
    take_requests: int = 500 * 32
    insert_every_s: float = 0.3
    """A worker stores the lines of all its partitions together: they wait 0.2 s, and it takes some
    0.1 s to store them."""
    cohorts_per_rate: float = 1 / 40
    """Tenants × models × regions, one for each 40 requests a second."""
    fewest_cohorts: int = 500
    additions_per_core_s: float = 50_000
    """Of the second stage; not measured."""
    windows_told_per_s: float = 2.0
    window_lengths: int = 4
    state_bytes_per_cohort: float = 400.0
    """200 with two lengths of windows, as the ledger's bound reckons; doubled for four."""
    shard_cores: int = 16
    shard_bytes: float = 20e12
    parts_per_shard_s: float = 40.0
    """As many were merged as they came on two shared cores (bench-sizes); more was not tried."""
    lines_kept_days: float = 90.0
    partition_bytes_per_s: float = 10e6
    """What one Kafka partition should carry."""
    requests_per_host_s: float = 100.0
    heartbeat_s: float = 5.0
    usage_retention_days: float = 7.0
    windows_retention_days: float = 30.0
    kafka_replicas: int = 3
    clickhouse_replicas: int = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rate comes to. Bytes are before replication but where it says so."""

    rate: int
    workers: int
    workers_of_single_requests: int
    usage_partitions: int
    cohorts: int
    additions_per_s: float
    """Of (take, cohort) pairs to the second stage; as many as requests where takes are short."""
    window_partitions: int
    window_rows_per_s: float
    window_state_bytes: float
    """Of the fullest window partition."""
    kafka_bytes_per_s: float
    """Usage, lines and window rows, into Kafka."""
    windows_topic_bytes_per_s: float
    """Into the one partition of cost.windows.v1."""
    stored_bytes_per_s: float
    kafka_retained_bytes: float
    """With replicas: a week of usage and lines, a month of windows."""
    stored_bytes_kept: float
    """On one replica of each shard: lines as long as they are kept, windows for a year."""
    shards: int
    parts_per_shard_s: float
    window_parts_per_shard_s: float
    """Each insert of windows has rows for every shard."""
    cores_per_shard: float
    """Busy with inserts and merges; queries come on top."""
    heartbeats_per_s: float
    lag_s: float
    """Age of a request when it is stored, in calm."""
    messages_behind_after_an_hour: float
    """Without ClickHouse. To catch up takes load / (1 - load) of the outage."""


def measured(folder: Path = RESULTS) -> Measured:
    """The defaults, replaced by what was measured on this machine."""
    found: dict[str, float] = {}
    for name, (file, figure) in SOURCES.items():
        path = folder / file
        if path.is_file():
            figures = json.loads(path.read_text())["figures"]
            if figure in figures:
                found[name] = float(figures[figure]["value"])
    return replace(Measured(), **found)


def plan(rate: int, known: Measured, assumed: Assumed) -> Plan:
    workers = _whole(rate / (known.worker_requests_per_s * assumed.load))
    single_s = known.worker_requests_per_cpu_s_single
    kept = (
        rate * known.stored_bytes_per_request * DAY_S * assumed.lines_kept_days
        + _rows_that_stay(rate, assumed) * known.stored_bytes_per_window_row * DAY_S * 365
    )
    cores_for_lines = rate * known.insert_and_merge_us_per_line / 1e6
    usable_cores = assumed.shard_cores * assumed.load
    shards = _power_of_two(max(cores_for_lines / usable_cores, kept / assumed.shard_bytes))
    # A multiple of the shards, and room to double the workers without a new count.
    partitions = max(_power_of_two(2 * workers), shards)
    take_s = min(assumed.take_s, assumed.take_requests * partitions / rate)
    takes = min(partitions / take_s, rate / assumed.batch_size)
    inserts = min(workers / assumed.insert_every_s, rate / assumed.batch_size)
    # A part for each shard that a worker's partitions belong to.
    parts = inserts * min(shards, _whole(partitions / workers))
    cores = cores_for_lines + parts * known.small_insert_cpu_ms / 1e3
    cohorts = _cohorts(rate, assumed)
    additions = takes * distinct(rate / takes, cohorts)
    window_partitions = _power_of_two(additions / (assumed.additions_per_core_s * assumed.load))
    window_parts = window_partitions * assumed.windows_told_per_s
    told = distinct(rate / assumed.windows_told_per_s, cohorts) * assumed.windows_told_per_s
    window_rows = told * assumed.window_lengths
    lines_kafka = known.usage_bytes_per_request + known.cost_bytes_per_request
    windows_topic = window_rows * known.window_bytes_per_row
    stay = _rows_that_stay(rate, assumed)
    return Plan(
        rate=rate,
        workers=workers,
        workers_of_single_requests=_whole(rate / (single_s * assumed.load)),
        usage_partitions=partitions,
        cohorts=cohorts,
        additions_per_s=additions,
        window_partitions=window_partitions,
        window_rows_per_s=window_rows,
        window_state_bytes=cohorts * assumed.state_bytes_per_cohort / window_partitions,
        kafka_bytes_per_s=rate * lines_kafka + windows_topic,
        windows_topic_bytes_per_s=windows_topic,
        stored_bytes_per_s=rate * known.stored_bytes_per_request
        + window_rows * known.stored_bytes_per_window_row,
        kafka_retained_bytes=assumed.kafka_replicas
        * DAY_S
        * (
            rate * lines_kafka * assumed.usage_retention_days
            # The first day whole, then one row of each window.
            + windows_topic
            + stay * known.window_bytes_per_row * (assumed.windows_retention_days - 1)
        ),
        stored_bytes_kept=kept,
        shards=shards,
        parts_per_shard_s=parts / shards,
        window_parts_per_shard_s=window_parts,
        cores_per_shard=cores / shards + window_parts * known.small_insert_cpu_ms / 1e3,
        heartbeats_per_s=rate / assumed.requests_per_host_s / assumed.heartbeat_s,
        lag_s=take_s + assumed.insert_every_s,
        messages_behind_after_an_hour=3600 * rate / assumed.batch_size,
    )


def breaks(p: Plan, assumed: Assumed) -> list[str]:
    """What is beyond its bound at this rate, the worst first by how far."""
    bounds = (
        (
            "parts a second on a shard",
            max(p.parts_per_shard_s, p.window_parts_per_shard_s),
            assumed.parts_per_shard_s,
        ),
        (
            "bytes a second in the one partition of cost.windows.v1",
            p.windows_topic_bytes_per_s,
            assumed.partition_bytes_per_s,
        ),
        # Each is compared with what is stored: two questions to ClickHouse, 20 ms together.
        ("heartbeats a second for the one reconciler", p.heartbeats_per_s, 50.0),
        ("saved state of a window partition, against a message", p.window_state_bytes, 15 * 2**20),
        ("additions to windows for each request", p.additions_per_s / p.rate, 0.5),
        (
            "cores of a shard that are busy with inserts",
            p.cores_per_shard,
            assumed.shard_cores * assumed.load,
        ),
        ("terabytes that Kafka keeps", p.kafka_retained_bytes / 1e12, 100.0),
    )
    over = sorted(((is_ / bound, what) for what, is_, bound in bounds if is_ > bound), reverse=True)
    return [f"{what} (× {factor:.3g})" for factor, what in over]


def _cohorts(rate: int, assumed: Assumed) -> int:
    return max(assumed.fewest_cohorts, round(rate * assumed.cohorts_per_rate))


def _rows_that_stay(rate: int, assumed: Assumed) -> float:
    """Windows a second that end, each with one row left in the end."""
    return _cohorts(rate, assumed) * (1 / 10 + 1 / 60 + 1 / 3600 + 1 / DAY_S)


def distinct(draws: float, kinds: int) -> float:
    """How many kinds are expected among so many draws, all being equally likely."""
    return min(draws, kinds * -math.expm1(draws * math.log1p(-1 / kinds)))


def _whole(count: float) -> int:
    return max(1, math.ceil(count))


def _power_of_two(least: float) -> int:
    return 1 << max(0, math.ceil(math.log2(max(1.0, least))))

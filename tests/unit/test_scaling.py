"""The plan of partitions, workers and shards: its laws, and the tables in docs/scaling.md."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scaling import sections
from benchmarks.scaling_plan import (
    RATES,
    SOURCES,
    Assumed,
    Measured,
    breaks,
    distinct,
    measured,
    plan,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "scaling.md"
KNOWN, ASSUMED = Measured(), Assumed()


@given(st.integers(1, 10**8), st.sampled_from([0.1, 0.5, 0.9]))
def test_the_counts_suffice_and_fit_each_other(rate: int, load: float) -> None:
    assumed = replace(ASSUMED, load=load)
    made = plan(rate, KNOWN, assumed)
    assert made.workers * KNOWN.worker_requests_per_s * load >= rate
    assert made.workers_of_single_requests >= made.workers
    assert made.usage_partitions >= 2 * made.workers
    assert made.usage_partitions % made.shards == 0
    assert made.additions_per_s <= rate * (1 + 1e-9)
    on_each = made.additions_per_s / made.window_partitions
    assert on_each <= assumed.additions_per_core_s * load * (1 + 1e-9)
    assert made.stored_bytes_kept / made.shards <= assumed.shard_bytes


@given(st.integers(1, 10**7))
def test_more_requests_need_no_less(rate: int) -> None:
    less, more = (plan(r, KNOWN, ASSUMED) for r in (rate, 2 * rate))
    for name in ("workers", "usage_partitions", "shards", "kafka_bytes_per_s", "cohorts"):
        assert getattr(less, name) <= getattr(more, name)


@pytest.mark.parametrize(("draws", "kinds", "expected"), [(1, 10, 1.0), (2, 2, 1.5), (0, 5, 0.0)])
def test_distinct_kinds_are_as_probability_has_it(draws: int, kinds: int, expected: float) -> None:
    assert distinct(draws, kinds) == pytest.approx(expected)


def test_distinct_kinds_are_all_where_draws_are_many() -> None:
    assert math.isclose(distinct(1e9, 1000), 1000)


def test_what_was_measured_here_takes_the_place_of_what_stands_in_the_code(tmp_path: Path) -> None:
    assert measured(tmp_path) == KNOWN
    figures = {"worker_32_wall": {"value": 200_000, "unit": "req/s"}}
    (tmp_path / "bench_stream.json").write_text(json.dumps({"figures": figures}))
    assert measured(tmp_path) == replace(KNOWN, worker_requests_per_s=200_000)


def test_every_measured_constant_has_a_source() -> None:
    assert set(SOURCES) == set(Measured.__dataclass_fields__)


def test_what_is_beyond_its_bound_is_said_with_the_worst_first() -> None:
    for rate in RATES:
        said = breaks(plan(rate, KNOWN, ASSUMED), ASSUMED)
        factors = [float(text.rpartition("× ")[2].rstrip(")")) for text in said]
        assert factors == sorted(factors, reverse=True)
        assert all(factor >= 1 for factor in factors)
    generous = replace(ASSUMED, cohorts_per_rate=0.0, fewest_cohorts=10, take_s=1.0)
    assert breaks(plan(RATES[0], KNOWN, generous), generous) == []


@pytest.mark.parametrize("name", ["plan", "beyond", "constants"])
def test_the_document_has_the_tables_that_the_constants_come_to(name: str) -> None:
    _, _, rest = DOCUMENT.read_text().partition(f"<!-- {name} -->\n")
    assert rest.partition("\n<!-- end -->")[0] == sections(KNOWN, ASSUMED)[name]

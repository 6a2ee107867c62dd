"""The arithmetic of the benchmark of the stream, what its sides are given, and the stopwatches."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from pathlib import Path

import pytest

from benchmarks.profiling.stages import Stopwatches
from benchmarks.stream.events import COHORTS, messages, price_book
from benchmarks.stream.figures import Ratio, figures_of
from benchmarks.stream.filling import divided
from benchmarks.stream.given import Given
from benchmarks.stream.measure import Rate, Sample, rate_of
from metering.errors import MeteringError
from metering.finishing import usage_of_payload
from metering.prices import parse_price_book
from metering.pricing import price_batch

NOW_NS = 1_780_000_000 * 10**9


def sample(requests: int, at_s: float) -> Sample:
    return Sample(requests, at_s, at_s / 2)


def test_a_rate_is_from_the_first_sample_to_the_last() -> None:
    rate = rate_of([sample(100, 1.0), sample(150, 2.0), sample(400, 3.0)], end=1000)
    assert (rate.requests, rate.per_s, rate.per_core) == (300, 150.0, 300.0)


def test_the_sample_at_the_topics_end_is_left_out_where_others_are_left() -> None:
    rate = rate_of([sample(100, 1.0), sample(400, 2.0), sample(500, 9.0)], end=500)
    assert (rate.requests, rate.wall_s) == (300, 1.0)
    assert rate_of([sample(100, 1.0), sample(500, 2.0)], end=500).requests == 400


def test_one_sample_is_no_rate() -> None:
    with pytest.raises(MeteringError, match="longer topic"):
        rate_of([sample(500, 1.0)], end=500)


def test_a_ratio_is_taken_within_each_round_and_its_median_is_held_against_the_target() -> None:
    rates = {
        "worker": [Rate(n, 1.0, 1.0) for n in (100, 300, 90)],
        "faust": [Rate(n, 1.0, 1.0) for n in (10, 100, 30)],
    }
    figures = figures_of(rates, [Ratio("worker", "faust", 3), Ratio("worker", "faust", 3)], 32)
    told = figures["worker_per_faust_32"]
    assert (told.value, told.holds, told.spread) == (3.0, True, "3 to 10")
    assert figures["worker_32"].value == 100
    missed = figures_of(rates, [Ratio("worker", "faust", 3.1)], 32)["worker_per_faust_32"]
    assert missed.holds is False


def test_the_last_core_is_the_sides_and_a_single_one_is_everybodys() -> None:
    assert divided({0, 1, 5}) == ({0, 1}, {5})
    assert divided({3}) == ({3}, {3})


def test_one_seed_gives_one_topic_and_another_seed_another() -> None:
    def values(seed: int) -> list[bytes]:
        return [m.value for m in messages(320, 32, seed=seed, until_ns=NOW_NS)]

    assert values(1) == values(1)
    assert values(1) != values(2)


def test_a_topic_has_all_cohorts_and_sequences_without_gaps() -> None:
    batches = [
        usage_of_payload(m.value) for m in messages(64_000, 32, seed=1, until_ns=time.time_ns())
    ]
    sequences: defaultdict[str, list[int]] = defaultdict(list)
    for batch in batches:
        sequences[batch.source].append(batch.sequence)
    assert all(own == list(range(len(own))) for own in sequences.values())
    assert len({(r.tenant, b.model, b.region) for b in batches for r in b.requests}) == COHORTS
    ends = [b.end_epoch_ns for b in batches]
    assert ends == sorted(ends)


def test_the_sides_in_floats_come_to_the_workers_costs(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(price_book())
    usd_per_gpu_ns = Given("", "", tmp_path, path).usd_per_gpu_ns()
    book = parse_price_book(price_book(), "prices")
    for message in messages(3_200, 32, seed=1, until_ns=NOW_NS):
        batch = json.loads(message.value)
        price = usd_per_gpu_ns[batch["accelerator"], batch["region"]]
        lines = price_batch(usage_of_payload(message.value), book)
        for gpu_ns, line in zip(batch["requests"]["gpu_ns"], lines, strict=True):
            assert line.cost_usd is not None
            assert math.isclose(gpu_ns * price, line.cost_usd, rel_tol=1e-9)


def inner() -> None:
    time.sleep(0.02)


def outer() -> None:
    time.sleep(0.01)
    inner()


def test_a_stage_gets_no_time_that_a_stage_inside_of_it_has_taken() -> None:
    watches = Stopwatches({"outer": (f"{__name__}:outer",), "inner": (f"{__name__}:inner",)})
    before = outer
    with watches.in_place():
        outer()
    assert outer is before
    assert watches.own_ns["inner"] >= 20_000_000
    assert 10_000_000 <= watches.own_ns["outer"] < 20_000_000


def test_a_stage_whose_function_is_gone_is_named() -> None:
    with (
        pytest.raises(MeteringError, match="no_such"),
        Stopwatches({"gone": (f"{__name__}:no_such",)}).in_place(),
    ):
        pass

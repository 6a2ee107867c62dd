"""The spend detector on synthetic traffic: Poisson arrivals, lognormal lengths, batches."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.options import DetectorOptions
from detectors.spend import Cohort, SpendDetector, anomaly_id
from metering.costs import Anomaly, Driver, WindowRow
from metering.errors import MeteringError
from metering.money import atto_usd, usd

NS_PER_HOUR = 3_600 * 10**9


@dataclass(frozen=True)
class Traffic:
    """One cohort's traffic; a request's GPU time is ``fixed/batch`` plus that of its tokens."""

    tenant: str
    model: str
    region: str = ""
    requests: float = 50.0
    burst: int = 1
    retry_rate: float = 0.0
    input_tokens: float = 600.0
    output_tokens: float = 150.0
    cached: float = 0.0
    length_sigma: float = 0.6
    batch: float = 12.0
    fixed_gpu_ns: float = 12e9
    input_token_gpu_ns: float = 5e5
    output_token_gpu_ns: float = 4e6
    usd_per_gpu_hour: float = 4.0


def window(t: Traffic, at: int, rng: np.random.Generator, part: float = 1.0) -> WindowRow | None:
    """Window number ``at``, 10 s long, of which traffic filled a ``part``."""
    n = int(rng.poisson(t.requests * part / t.burst)) * t.burst
    if n == 0:
        return None
    tokens_in = _lengths(t.input_tokens, t.length_sigma, n, rng)
    tokens_out = _lengths(t.output_tokens, t.length_sigma, n, rng)
    batches = np.maximum(1, rng.poisson(t.batch - 1, n) + 1)
    hit = rng.random(n) < t.cached
    work_in = tokens_in * t.input_token_gpu_ns * np.where(hit, 0.1, 1.0)
    work_out = tokens_out * t.output_token_gpu_ns
    gpu = (t.fixed_gpu_ns / batches + work_in + work_out) * rng.normal(1.0, 0.05, n).clip(0.5)
    gpu_in = int((gpu * work_in / (work_in + work_out)).sum())
    gpu_out = int(gpu.sum()) - gpu_in
    atto_per_ns = atto_usd(Decimal(repr(t.usd_per_gpu_hour))) // NS_PER_HOUR
    return WindowRow(
        window_start_ms=1_700_000_000_000 + at * 10_000,
        window_seconds=10,
        tenant=t.tenant,
        model=t.model,
        region=t.region,
        final=True,
        counted_to=at,
        requests=n,
        retries=int(rng.binomial(n, t.retry_rate)),
        unpriced_requests=0,
        batch_size_sum=int(batches.sum()),
        input_tokens=int(tokens_in.sum()),
        cached_input_tokens=int(tokens_in[hit].sum()),
        output_tokens=int(tokens_out.sum()),
        gpu_ns=gpu_in + gpu_out,
        input_gpu_ns=gpu_in,
        output_gpu_ns=gpu_out,
        cost_usd=usd((gpu_in + gpu_out) * atto_per_ns),
        input_cost_usd=usd(gpu_in * atto_per_ns),
        output_cost_usd=usd(gpu_out * atto_per_ns),
    )


def _lengths(
    mean: float, sigma: float, n: int, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    drawn = rng.lognormal(math.log(mean) - sigma**2 / 2, sigma, n)
    return np.maximum(1, drawn).astype(np.int64)


Change = Callable[[Traffic, int], Traffic]


def stream(
    cohorts: Sequence[Traffic],
    windows: int,
    seed: int,
    change: Change = lambda t, _: t,
    first: int = 0,
) -> list[list[WindowRow]]:
    """Windows of all cohorts; the very first is a part of one."""
    rng = np.random.default_rng(seed)
    begun = float(rng.uniform(0.1, 1.0))
    made: list[list[WindowRow]] = []
    for at in range(first, first + windows):
        part = begun if at == 0 else 1.0
        rows = [window(change(t, at), at, rng, part) for t in cohorts]
        made.append([row for row in rows if row is not None])
    return made


def observe(detector: SpendDetector, windows: Iterable[Sequence[WindowRow]]) -> list[Anomaly]:
    return [anomaly for rows in windows for anomaly in detector.observe(rows)]


def from_window(at: int, tenant: str, model: str, /, **what: float) -> Change:
    """From window ``at`` on, the cohort's fields are multiplied by ``what``."""

    def change(t: Traffic, now: int) -> Traffic:
        if now < at or (t.tenant, t.model) != (tenant, model):
            return t
        return replace(t, **{name: getattr(t, name) * by for name, by in what.items()})

    return change


FLEET = (
    Traffic("acme", "llama_8b_sim"),
    Traffic("acme", "embed_sim", requests=80, input_tokens=300, output_tokens=1),
    Traffic("beta", "llama_8b_sim", requests=30, input_tokens=1500),
    Traffic("beta", "vision_sim", requests=20, usd_per_gpu_hour=2.5),
    Traffic("gamma", "llama_8b_sim", requests=8, output_tokens=400),
    Traffic("gamma", "vision_sim", requests=2),
)


INCIDENTS: dict[str, tuple[Driver, str, dict[str, tuple[float, float]]]] = {
    "requests come one by one": (
        "gpu_time_per_token",
        "batch under-fill",
        {"batch": (1 / 12, 1 / 12), "fixed_gpu_ns": (1.0, 1.5)},
    ),
    "a retry storm": ("volume", "retries", {"requests": (3.0, 4.0), "batch": (1.1, 1.4)}),
    "long prompts": ("input_length", "longer prompts", {"input_tokens": (4.0, 10.0)}),
    "a dearer GPU": ("price", "GPU-hour price", {"usd_per_gpu_hour": (2.0, 3.0)}),
}


@pytest.mark.parametrize("seed", range(12))
def test_calm_noisy_traffic_raises_nothing(seed: int) -> None:
    assert observe(SpendDetector(), stream(FLEET, 200, seed)) == []


@pytest.mark.parametrize(
    "habit",
    [
        {"burst": 4},
        {"length_sigma": 0.05},
        {"requests": 0.3, "fixed_gpu_ns": 60e9},
        {"requests": 1.5, "burst": 5},
        {"usd_per_gpu_hour": 0.01},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", range(3))
def test_bursts_and_rare_requests_raise_nothing(habit: dict[str, Any], seed: int) -> None:
    cohorts = [replace(t, **habit) for t in FLEET]
    assert observe(SpendDetector(), stream(cohorts, 200, seed)) == []


CASES = 30
NEARLY_ALL = 28
"""Traffic is noisy: a weak incident that begins in a lucky window may be told a window later."""


@pytest.mark.parametrize("name", INCIDENTS)
def test_nearly_every_incident_is_found_within_two_windows_with_its_driver_and_tenant(
    name: str,
) -> None:
    driver, mechanism, spans = INCIDENTS[name]
    rng = np.random.default_rng(694)
    found = 0
    for _ in range(CASES):
        who = (("acme", "beta")[rng.integers(2)], "llama_8b_sim")
        start, strength = int(rng.integers(8, 60)), float(rng.uniform())
        by = {field: low + strength * (high - low) for field, (low, high) in spans.items()}
        if name == "a retry storm":
            by["retry_rate"] = 1 - 1 / by["requests"]
        change = incident_from(start, *who, **by)
        anomalies = observe(
            SpendDetector(), stream(FLEET, start + 2, int(rng.integers(2**32)), change)
        )
        assert {(a.tenant, a.model) for a in anomalies} <= {who}, "nobody else is accused"
        for anomaly in anomalies[:1]:
            top = anomaly.causes[0]
            found += (
                (top.driver, top.slice) == (driver, {"tenant": who[0], "model": who[1]})
                and f" ▸ {mechanism} ▸ " in top.lever
                and top.usd_per_hour > 0
                and 0.5 <= top.confidence <= 1
            )
    assert found >= NEARLY_ALL


def incident_from(at: int, tenant: str, model: str, /, **what: float) -> Change:
    """As :func:`from_window`, but a rate of retries is set, not multiplied."""
    rates = {"retry_rate": what.pop("retry_rate")} if "retry_rate" in what else {}
    multiply = from_window(at, tenant, model, **what)

    def change(t: Traffic, now: int) -> Traffic:
        hit = now >= at and (t.tenant, t.model) == (tenant, model)
        return replace(multiply(t, now), **rates) if hit else t

    return change


def test_a_price_that_all_of_a_models_tenants_pay_is_named_by_the_model() -> None:
    def dearer(t: Traffic, now: int) -> Traffic:
        hit = now >= 20 and t.model == "llama_8b_sim"
        return replace(t, usd_per_gpu_hour=t.usd_per_gpu_hour * (3 if hit else 1))

    anomalies = observe(SpendDetector(), stream(FLEET, 22, 5, dearer))
    assert {(a.tenant, a.model) for a in anomalies} == {
        (t.tenant, t.model) for t in FLEET if t.model == "llama_8b_sim"
    }
    assert all(a.causes[0].driver == "price" for a in anomalies)
    assert all(a.causes[0].slice == {"model": "llama_8b_sim"} for a in anomalies)


@pytest.mark.parametrize("seed", range(4))
def test_the_tides_of_a_day_raise_nothing(seed: int) -> None:
    """Between half and one and a half times the mean, in 500 windows: 17 times as fast as days."""

    def tide(t: Traffic, now: int) -> Traffic:
        return replace(t, requests=t.requests * (1 + 0.5 * math.sin(2 * math.pi * now / 500)))

    assert observe(SpendDetector(), stream(FLEET, 600, seed, tide)) == []


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_spike_before_the_model_is_warm_raises_nothing(at: int) -> None:
    def spike(t: Traffic, now: int) -> Traffic:
        return replace(t, requests=t.requests * (10 if now == at else 1))

    assert observe(SpendDetector(), stream(FLEET, 60, 3, spike)) == []


def test_the_end_of_traffic_is_told_only_where_decreases_are() -> None:
    windows = stream(FLEET[:2], 30, 2)
    last = stream(FLEET[:1], 2, 2, first=30)
    assert observe(SpendDetector(), windows + last) == []
    told = observe(SpendDetector(DetectorOptions(report_decreases=True)), windows + last)
    assert [(a.tenant, a.model) for a in told] == [("acme", "embed_sim")]
    assert told[0].observed_usd == 0
    assert told[0].usd_per_hour < 0
    assert told[0].causes[0].driver == "volume"


def test_a_lasting_incident_is_told_first_and_then_at_rests() -> None:
    options = DetectorOptions(accept_after_windows=1000, repeat_after_windows=10)
    change = from_window(20, "acme", "llama_8b_sim", usd_per_gpu_hour=3.0)
    told = observe(SpendDetector(options), stream(FLEET, 45, 1, change))
    assert [(a.window_start_ms - 1_700_000_000_000) // 10_000 for a in told] == [20, 30, 40]
    assert len({a.anomaly_id for a in told}) == 3


def test_another_top_cause_in_an_incident_is_told_at_once() -> None:
    dear = from_window(20, "acme", "llama_8b_sim", usd_per_gpu_hour=3.0)
    long = from_window(25, "acme", "llama_8b_sim", input_tokens=30.0)
    told = observe(SpendDetector(), stream(FLEET, 30, 1, lambda t, n: long(dear(t, n), n)))
    assert [a.causes[0].driver for a in told] == ["price", "input_length"]


def test_a_new_level_is_accepted_once_it_has_lasted() -> None:
    options = DetectorOptions(accept_after_windows=15, repeat_after_windows=5)
    dear = from_window(20, "acme", "llama_8b_sim", usd_per_gpu_hour=3.0)
    dearer = from_window(60, "acme", "llama_8b_sim", usd_per_gpu_hour=3.0)
    told = observe(SpendDetector(options), stream(FLEET, 62, 1, lambda t, n: dearer(dear(t, n), n)))
    at = [(a.window_start_ms - 1_700_000_000_000) // 10_000 for a in told]
    assert at == [20, 25, 30, 60]
    assert float(told[-1].expected_usd) == pytest.approx(float(told[0].observed_usd), rel=0.5)


def test_an_incident_does_not_teach_the_model() -> None:
    def storm(t: Traffic, now: int) -> Traffic:
        return replace(t, requests=t.requests * (4 if 20 <= now < 40 or now >= 60 else 1))

    told = observe(SpendDetector(), stream(FLEET[:1], 61, 1, storm))
    assert len(told) == 2
    assert float(told[1].expected_usd) == pytest.approx(float(told[0].expected_usd), rel=0.3)


def test_new_spend_is_judged_against_nothing_above_the_floor_alone() -> None:
    known, late = FLEET[:3], FLEET[3]
    cheap = replace(late, tenant="delta", usd_per_gpu_hour=0.1)

    def rows(first: int, windows: int, *cohorts: Traffic) -> list[list[WindowRow]]:
        return stream((*known, *cohorts), windows, first, first=first)

    told = observe(SpendDetector(), rows(0, 20) + rows(20, 40, late, cheap))
    assert [(a.tenant, a.model, a.expected_usd) for a in told] == [
        ("beta", "vision_sim", Decimal(0))
    ]
    assert told[0].window_start_ms <= 1_700_000_000_000 + 21 * 10_000
    assert told[0].causes[0].driver == "volume"


def test_a_cohort_that_comes_back_as_it_was_raises_nothing() -> None:
    windows = stream(FLEET, 20, 1) + stream(FLEET[1:], 50, 2, first=20)
    assert observe(SpendDetector(), windows + stream(FLEET, 30, 3, first=70)) == []


def test_a_pause_of_all_traffic_raises_nothing() -> None:
    assert observe(SpendDetector(), stream(FLEET, 20, 1) + stream(FLEET, 20, 2, first=50)) == []
    after_long = stream(FLEET, 20, 2, first=50_000)
    assert observe(SpendDetector(), stream(FLEET, 20, 1) + after_long) == []


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_the_order_of_rows_in_a_window_changes_nothing(seed: int, shuffler: random.Random) -> None:
    windows = stream(FLEET, 16, seed, from_window(12, "beta", "llama_8b_sim", requests=5.0))
    shuffled = [shuffler.sample(rows, len(rows)) for rows in windows]
    told = observe(SpendDetector(), windows)
    assert told
    assert observe(SpendDetector(), shuffled) == told


def test_a_replay_of_the_windows_gives_the_same_state() -> None:
    windows = stream(FLEET, 40, 9, from_window(30, "acme", "llama_8b_sim", input_tokens=8.0))
    through, restarted = SpendDetector(), SpendDetector()
    first = observe(through, windows[:31])
    assert first
    assert observe(restarted, windows[:31]) == first
    assert observe(restarted, windows[31:]) == observe(through, windows[31:])


def test_an_anomaly_is_identified_by_what_it_speaks_of() -> None:
    ids = {
        anomaly_id(Cohort(*names), start_ms, seconds)
        for *names, start_ms, seconds in (
            ("a", "b", "", 0, 10),
            ("a,b", "", "", 0, 10),
            ("a", "b", "", 10_000, 10),
            ("a", "b", "", 0, 60),
            ("b", "a", "", 0, 10),
            ("a", "b", "c", 0, 10),
            ("a", "b", "d", 0, 10),
        )
    }
    assert len(ids) == 7


def test_an_anomaly_of_before_regions_were_told_apart_keeps_its_id() -> None:
    before = hashlib.sha256(b'["acme", "llama", 1700000000000, 10]').hexdigest()[:32]
    assert anomaly_id(Cohort("acme", "llama", ""), 1_700_000_000_000, 10) == before


def test_a_window_that_was_judged_before_changes_nothing() -> None:
    windows = stream(FLEET, 30, 4, from_window(29, "acme", "llama_8b_sim", requests=9.0))
    plain, corrected = SpendDetector(), SpendDetector()
    told = observe(plain, windows)
    assert observe(corrected, [*windows[:20], windows[12], *windows[20:]]) == told
    assert told
    assert corrected.late_windows == 1


def test_the_row_that_counted_furthest_is_taken() -> None:
    windows = stream(FLEET, 30, 4)
    huge = windows[-1][0].model_copy(update={"counted_to": 0, "cost_usd": Decimal(10**6)})
    told = observe(SpendDetector(), [*windows[:-1], [*windows[-1], huge]])
    assert told == observe(SpendDetector(), windows)


def test_rows_that_are_not_one_closed_window_are_refused() -> None:
    one, two = stream(FLEET[:1], 2, 1)
    with pytest.raises(MeteringError, match="several windows"):
        SpendDetector().observe([*one, *two])
    with pytest.raises(MeteringError, match="not final"):
        SpendDetector().observe([one[0].model_copy(update={"final": False})])
    detector = SpendDetector()
    detector.observe(one)
    with pytest.raises(MeteringError, match="window_seconds=60"):
        detector.observe([two[0].model_copy(update={"window_seconds": 60})])
    with pytest.raises(MeteringError, match="multiple"):
        detector.observe(
            [two[0].model_copy(update={"window_start_ms": two[0].window_start_ms + 1})]
        )


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("z_threshold", 0.0),
        ("floor_usd_per_hour", -1.0),
        ("min_windows", 0),
        ("accept_after_windows", 4),
        ("min_purity", 1.5),
    ],
)
def test_an_option_out_of_bounds_is_refused_by_name(option: str, value: float) -> None:
    with pytest.raises(MeteringError, match=option):
        DetectorOptions(**cast(Any, {option: value}))


def test_a_floor_of_zero_is_a_floor() -> None:
    cheap = [replace(t, usd_per_gpu_hour=t.usd_per_gpu_hour / 1000) for t in FLEET]
    windows = stream(cheap, 22, 1, from_window(20, "acme", "llama_8b_sim", requests=5.0))
    assert observe(SpendDetector(), windows) == []
    told = observe(SpendDetector(DetectorOptions(floor_usd_per_hour=0.0)), windows)
    assert [(a.tenant, a.model) for a in told] == [("acme", "llama_8b_sim")]

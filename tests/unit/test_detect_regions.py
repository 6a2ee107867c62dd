"""The spend detector where one tenant and model have several regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import pytest

from detectors.options import DetectorOptions
from detectors.spend import SpendDetector
from metering.costs import Anomaly, WindowRow
from metering.drivers import CostFactors
from tests.unit.test_detect_spend import FLEET, Change, Traffic, observe, stream

TWO_REGIONS = tuple(replace(t, region=region) for t in FLEET for region in ("eu", "us"))
ALL_EU = tuple(replace(t, region="eu") for t in FLEET)
US_LLAMA = ("acme", "llama_8b_sim", "us")
FACTORS = tuple(f.name for f in fields(CostFactors))
SUMS = (*FACTORS, "cost_usd", "retries", "batch_size_sum", "cached_input_tokens", "gpu_ns")


def in_region(at: int, region: str, /, tenant: str = "", model: str = "", **what: float) -> Change:
    """From window ``at`` on, fields of the region's cohorts are multiplied by ``what``."""

    def change(t: Traffic, now: int) -> Traffic:
        hit = now >= at and t.region == region
        if not (hit and tenant in ("", t.tenant) and model in ("", t.model)):
            return t
        return replace(t, **{name: getattr(t, name) * by for name, by in what.items()})

    return change


def named(anomalies: Sequence[Anomaly]) -> list[tuple[str, str, str]]:
    return [(a.tenant, a.model, a.region) for a in anomalies]


@pytest.mark.parametrize("seed", range(6))
def test_calm_noisy_traffic_of_two_regions_raises_nothing(seed: int) -> None:
    assert observe(SpendDetector(), stream(TWO_REGIONS, 200, seed)) == []


@pytest.mark.parametrize("seed", range(6))
def test_an_incident_in_one_region_is_told_of_it_alone_and_its_cause_names_it(seed: int) -> None:
    change = in_region(20, "eu", "acme", "llama_8b_sim", input_tokens=8.0)
    told = observe(SpendDetector(), stream(TWO_REGIONS, 22, seed, change))
    assert named(told) == [("acme", "llama_8b_sim", "eu")]
    top = told[0].causes[0]
    assert top.driver == "input_length"
    assert top.slice == {"tenant": "acme", "model": "llama_8b_sim", "region": "eu"}
    assert "{model=llama_8b_sim, region=eu, tenant=acme}" in top.lever


def test_what_falls_in_one_region_does_not_mask_what_rises_in_another() -> None:
    """The sum of both regions stays as it was."""
    larger = replace(FLEET[0], region="us", requests=120.0)
    cohorts = [larger if (t.tenant, t.model, t.region) == US_LLAMA else t for t in TWO_REGIONS]
    rise = in_region(20, "eu", "acme", "llama_8b_sim", requests=3.0)
    fall = in_region(20, "us", "acme", "llama_8b_sim", requests=1 / 6)
    windows = stream(cohorts, 24, 3, lambda t, now: fall(rise(t, now), now))
    assert observe(SpendDetector(), [summed(rows) for rows in windows]) == []
    told = observe(SpendDetector(), windows)
    assert named(told) == [("acme", "llama_8b_sim", "eu")]
    assert told[0].causes[0].driver == "volume"


def summed(rows: Sequence[WindowRow]) -> list[WindowRow]:
    """As it was told before regions were: one row for each tenant and model."""
    sums: dict[tuple[str, str], WindowRow] = {}
    for row in rows:
        held = sums.get((row.tenant, row.model))
        changes = {} if held is None else {f: getattr(held, f) + getattr(row, f) for f in SUMS}
        sums[row.tenant, row.model] = row.model_copy(update=changes | {"region": ""})
    return list(sums.values())


def test_a_price_of_one_region_is_named_by_the_region() -> None:
    change = in_region(20, "eu", usd_per_gpu_hour=3.0)
    told = observe(SpendDetector(), stream(TWO_REGIONS, 22, 5, change))
    assert {a.region for a in told} == {"eu"}
    assert len(told) >= len(FLEET) - 1, "of all but the one with two requests in a window"
    assert all(a.causes[0].slice == {"region": "eu"} for a in told)


def test_what_moved_in_every_region_names_none() -> None:
    def dearer(t: Traffic, now: int) -> Traffic:
        hit = now >= 20 and t.model == "llama_8b_sim"
        return replace(t, usd_per_gpu_hour=t.usd_per_gpu_hour * (3 if hit else 1))

    told = observe(SpendDetector(), stream(TWO_REGIONS, 22, 5, dearer))
    assert {a.region for a in told} == {"eu", "us"}
    assert all(a.causes[0].slice == {"model": "llama_8b_sim"} for a in told)


def test_the_only_region_is_on_the_anomaly_and_in_no_slice() -> None:
    change = in_region(20, "eu", "acme", "llama_8b_sim", requests=4.0)
    told = observe(SpendDetector(), stream(ALL_EU, 22, 5, change))
    assert named(told) == [("acme", "llama_8b_sim", "eu")]
    assert told[0].causes[0].slice == {"tenant": "acme", "model": "llama_8b_sim"}


def test_one_region_more_or_less_changes_nothing_else_in_what_is_told() -> None:
    change = in_region(20, "", "acme", "llama_8b_sim", requests=4.0)
    nowhere = observe(SpendDetector(), stream(FLEET, 22, 5, change))
    change = in_region(20, "eu", "acme", "llama_8b_sim", requests=4.0)
    somewhere = observe(SpendDetector(), stream(ALL_EU, 22, 5, change))
    same = {"region": "", "anomaly_id": ""}
    assert nowhere
    assert [a.model_copy(update=same) for a in somewhere] == [
        a.model_copy(update=same) for a in nowhere
    ]


def test_anomalies_of_two_regions_have_two_ids() -> None:
    def storm(t: Traffic, now: int) -> Traffic:
        hit = now >= 20 and (t.tenant, t.model) == ("acme", "llama_8b_sim")
        return replace(t, requests=t.requests * (4 if hit else 1))

    told = observe(SpendDetector(), stream(TWO_REGIONS, 21, 5, storm))
    assert {a.region for a in told} == {"eu", "us"}
    assert len({a.anomaly_id for a in told}) == 2


@pytest.mark.parametrize("decreases", [False, True])
def test_telling_regions_apart_from_now_on_is_no_anomaly(decreases: bool) -> None:
    """Rows from before have no region: that those end and others begin is an update of ours."""
    detector = SpendDetector(DetectorOptions(report_decreases=decreases))
    halves = tuple(replace(t, requests=t.requests / 2) for t in TWO_REGIONS)
    assert observe(detector, stream(FLEET, 30, 1) + stream(halves, 60, 2, first=30)) == []


def test_a_region_that_begins_later_is_new_spend() -> None:
    late = replace(FLEET[0], region="us")
    windows = stream(ALL_EU, 20, 1) + stream((*ALL_EU, late), 3, 2, first=20)
    told = observe(SpendDetector(), windows)
    assert named(told) == [("acme", "llama_8b_sim", "us")]
    assert told[0].expected_usd == 0
    assert told[0].causes[0].slice["region"] == "us"

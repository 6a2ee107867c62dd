"""The root-cause search, on judgements made by hand."""

from __future__ import annotations

from itertools import product

import pytest

from detectors.levers import mechanism
from detectors.options import DetectorOptions
from detectors.readings import Judgement, Move, Reading
from detectors.root_cause import Leaf, find_causes
from metering.costs import DRIVERS, CauseTag, Driver
from metering.drivers import CostFactors

OPTIONS = DetectorOptions()
CALM = Move(effect_usd_per_hour=0.0, log_change=0.0, log_noise=0.05, z=0.0)


def moved(usd_per_hour: float, log_change: float = 1.4, z: float = 20.0) -> Move:
    return Move(usd_per_hour, log_change, 0.05, z)


def judgement(moves: dict[Driver, Move], **observed: float) -> Judgement:
    """A cohort of 100 requests and 36 USD an hour in windows of 10 s, changed by its moves."""
    change = sum(m.effect_usd_per_hour for m in moves.values()) / 360
    factors = CostFactors(100, 1e4, 1e4, 1e12, 1e12, 0.05, 0.05)
    after = CostFactors(100, 1e4, 1e4, 1e12, 1e12, 0.05 + change, 0.05)
    extras = {"retries": 0.0, "batch_size_sum": 1200.0, "cached_input_tokens": 5000.0}
    calm: dict[Driver, Move] = dict.fromkeys(
        ("volume", "input_length", "output_length", "gpu_time_per_token", "price"), CALM
    )
    return Judgement(
        expected=Reading(factors, **extras),
        observed=Reading(after, **(extras | observed)),
        windows_per_hour=360,
        spend_z=20.0,
        moves=calm | moves,
    )


def leaf(judged: Judgement, **where: str) -> Leaf:
    return Leaf(where, judged)


def fleet(
    driver: Driver, moving: set[tuple[str, str]], usd: float = 40.0
) -> dict[tuple[str, str], Leaf]:
    return {
        (tenant, model): leaf(
            judgement({driver: moved(usd)} if (tenant, model) in moving else {}),
            tenant=tenant,
            model=model,
        )
        for tenant, model in product("abcde", ("llama", "vision"))
    }


def only(tags: tuple[CauseTag, ...]) -> CauseTag:
    assert len(tags) == 1
    return tags[0]


def slice_of(cohorts: dict[tuple[str, str], Leaf], at: tuple[str, str]) -> dict[str, str]:
    return only(find_causes(cohorts[at], list(cohorts.values()), OPTIONS)).slice


def test_one_cohort_that_moved_is_named_by_all_its_dimensions() -> None:
    assert slice_of(fleet("volume", {("a", "llama")}), ("a", "llama")) == {
        "tenant": "a",
        "model": "llama",
    }


def test_a_tenant_whose_models_moved_together_is_named_alone() -> None:
    cohorts = fleet("volume", {("a", "llama"), ("a", "vision")})
    assert slice_of(cohorts, ("a", "llama")) == {"tenant": "a"}


def test_a_model_whose_tenants_moved_together_is_named_alone() -> None:
    cohorts = fleet("price", {(t, "llama") for t in "abcde"})
    assert slice_of(cohorts, ("a", "llama")) == {"model": "llama"}


def test_what_moved_everywhere_has_an_empty_slice() -> None:
    cohorts = fleet("price", set(product("abcde", ("llama", "vision"))))
    assert slice_of(cohorts, ("a", "llama")) == {}


def test_a_tenants_only_model_is_named_with_it() -> None:
    cohorts = fleet("price", {("a", "llama")})
    del cohorts["a", "vision"]
    assert slice_of(cohorts, ("a", "llama")) == {"tenant": "a", "model": "llama"}


def test_two_tenants_of_five_do_not_accuse_the_model() -> None:
    cohorts = fleet("price", {("a", "llama"), ("b", "llama")})
    assert slice_of(cohorts, ("a", "llama")) == {"tenant": "a", "model": "llama"}


def test_those_that_moved_far_less_did_not_move_together() -> None:
    """Who shares batches with the culprit bears a part of it, significant though it may be."""
    cohorts = fleet("gpu_time_per_token", {("a", "llama")})
    for tenant in "bcde":
        slight = judgement({"gpu_time_per_token": moved(9.0, log_change=0.35, z=7.0)})
        cohorts[tenant, "llama"] = leaf(slight, tenant=tenant, model="llama")
    assert slice_of(cohorts, ("a", "llama")) == {"tenant": "a", "model": "llama"}


def test_cohorts_too_noisy_to_be_seen_moving_count_for_neither_side() -> None:
    cohorts = fleet("price", {("a", "llama"), ("b", "llama")})
    for tenant in "cde":
        noisy = judgement({"price": Move(0.0, 0.0, log_noise=2.0, z=0.0)})
        cohorts[tenant, "llama"] = leaf(noisy, tenant=tenant, model="llama")
    assert slice_of(cohorts, ("a", "llama")) == {"model": "llama"}


@pytest.mark.parametrize("dimensions", [1, 3, 4])
def test_the_lattice_may_have_any_number_of_dimensions(dimensions: int) -> None:
    names = ["tenant", "region", "model", "tier"][:dimensions]
    leaves = {}
    for values in product("xyz", repeat=dimensions):
        where = dict(zip(names, values, strict=True))
        hit = where.get("region", "x") == "x" and where["tenant"] == "x"
        leaves[values] = leaf(judgement({"volume": moved(5.0)} if hit else {}), **where)
    found = only(find_causes(leaves[("x",) * dimensions], list(leaves.values()), OPTIONS))
    assert found.slice == {name: "x" for name in names if name in ("tenant", "region")}


def in_regions(moving: set[tuple[str, str, str]]) -> dict[tuple[str, str, str], Leaf]:
    return {
        (tenant, model, region): leaf(
            judgement({"price": moved(40.0)} if (tenant, model, region) in moving else {}),
            tenant=tenant,
            model=model,
            region=region,
        )
        for tenant, model, region in product("ab", ("llama", "vision"), ("eu", "us"))
    }


@pytest.mark.parametrize(
    ("moving", "where"),
    [
        ({("a", "llama", "eu")}, {"tenant": "a", "model": "llama", "region": "eu"}),
        (set(product("a", ["llama"], ["eu", "us"])), {"tenant": "a", "model": "llama"}),
        (set(product("ab", ["llama"], ["eu"])), {"model": "llama", "region": "eu"}),
        (set(product("ab", ["llama", "vision"], ["eu"])), {"region": "eu"}),
        (set(product("ab", ["llama", "vision"], ["eu", "us"])), {}),
    ],
    ids=lambda x: str(x) if isinstance(x, dict) else "",
)
def test_a_region_is_named_where_it_is_what_differs(
    moving: set[tuple[str, str, str]], where: dict[str, str]
) -> None:
    cohorts = in_regions(moving)
    tag = only(find_causes(cohorts["a", "llama", "eu"], list(cohorts.values()), OPTIONS))
    assert tag.slice == where


def test_a_region_that_a_model_has_alone_is_not_named() -> None:
    """Vision runs in both, llama in one of them."""
    cohorts = in_regions({("a", "llama", "eu"), ("b", "llama", "eu")})
    for tenant in "ab":
        del cohorts[tenant, "llama", "us"]
    tag = only(find_causes(cohorts["a", "llama", "eu"], list(cohorts.values()), OPTIONS))
    assert tag.slice == {"model": "llama"}


def test_what_did_not_move_significantly_gets_no_tag() -> None:
    weak = leaf(judgement({"volume": moved(40.0, z=4.9)}), tenant="a", model="llama")
    assert find_causes(weak, [weak], OPTIONS) == ()


def test_a_small_part_of_the_change_gets_no_tag() -> None:
    both = judgement({"volume": moved(95.0), "price": moved(5.0)})
    one = leaf(both, tenant="a", model="llama")
    assert [t.driver for t in find_causes(one, [one], OPTIONS)] == ["volume"]


def test_tags_come_by_share_and_an_offsetting_driver_has_none() -> None:
    moves: dict[Driver, Move] = {
        "volume": moved(20.0),
        "input_length": moved(60.0),
        "gpu_time_per_token": moved(-30.0, log_change=-0.5, z=-9.0),
    }
    one = leaf(judgement(moves), tenant="a", model="llama")
    tags = find_causes(one, [one], OPTIONS)
    assert [(t.driver, round(t.share, 6)) for t in tags] == [("input_length", 1.2), ("volume", 0.4)]
    assert float(tags[0].usd_per_hour) == pytest.approx(60.0)


def test_a_lever_reads_as_a_sentence_of_its_parts() -> None:
    starved = judgement(
        {"gpu_time_per_token": moved(34.0), "volume": moved(7.0, z=1.0)}, batch_size_sum=600.0
    )
    one = leaf(starved, tenant="eu", model="llama-8b")
    assert only(find_causes(one, [one], OPTIONS)).lever == (
        "gpu_time_per_token ▸ batch under-fill ▸ {model=llama-8b, tenant=eu} ▸ 83 % of +$41/h"
    )


@pytest.mark.parametrize(
    ("driver", "observed", "words"),
    [
        ("gpu_time_per_token", {"batch_size_sum": 830.0}, "batch under-fill"),
        ("gpu_time_per_token", {"batch_size_sum": 850.0}, "slower per token"),
        ("gpu_time_per_token", {"cached_input_tokens": 1000.0}, "lower cache hits"),
        ("volume", {"retries": 40.0}, "retries"),
        ("volume", {"retries": 4.0}, "more requests"),
        ("input_length", {}, "longer prompts"),
        ("input_length", {"cached_input_tokens": 0.0}, "longer prompts, lower cache hits"),
        ("output_length", {}, "longer answers"),
        ("price", {}, "GPU-hour price"),
    ],
)
def test_the_mechanism_is_named(driver: Driver, observed: dict[str, float], words: str) -> None:
    one = leaf(judgement({driver: moved(40.0)}, **observed), tenant="a", model="llama")
    assert only(find_causes(one, [one], OPTIONS)).lever.split(" ▸ ")[1] == words


def test_confidence_grows_with_evidence_and_falls_with_impurity() -> None:
    def confidence(z: float, still: int) -> float:
        cohorts = [
            leaf(judgement({"price": moved(40.0, z=z)}), tenant=str(n), model="llama")
            for n in range(8)
        ]
        cohorts += [leaf(judgement({}), tenant=f"s{n}", model="llama") for n in range(still)]
        tag = only(find_causes(cohorts[0], cohorts, OPTIONS))
        assert tag.slice == {"model": "llama"}
        return tag.confidence

    assert confidence(5.0, 0) == pytest.approx(0.5)
    assert confidence(50.0, 0) == pytest.approx(1 / (1 + 0.01))
    assert confidence(50.0, 2) == pytest.approx(0.8 * confidence(50.0, 0))


def test_a_fall_is_explained_like_a_rise() -> None:
    fell = judgement({"volume": moved(-30.0, log_change=-1.4, z=-20.0)})
    one = leaf(fell, tenant="a", model="llama")
    tag = only(find_causes(one, [one], OPTIONS))
    assert tag.lever == "volume ▸ fewer requests ▸ {model=llama, tenant=a} ▸ 100 % of −$30/h"


@pytest.mark.parametrize("requests", [1.0, 1e6, 2.0**64])
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_part_that_is_larger_than_its_whole_has_a_mechanism_too(
    driver: Driver, requests: float
) -> None:
    """Nothing forbids a row that says so, and none may stop the detector."""
    usual = Reading(CostFactors(requests=requests, input_tokens=1.0), cached_input_tokens=1.0)
    odd = Reading(
        CostFactors(requests=requests, input_tokens=1.0),
        retries=2.0 * requests,
        cached_input_tokens=-9.0,
    )
    for before, after in ((usual, odd), (odd, usual), (odd, odd)):
        assert mechanism(driver, before, after, rise=True)

"""The demo's traffic is steady, and an incident changes its culprit's and nobody else's."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev

import pytest

import triton_models
from streams.replay.plan import PlannedRequest, TextPrompt, TextToEmbed, TokenPrompt
from streams.replay.scenario import (
    INCIDENTS,
    LONG_PROMPT_FACTOR,
    SCENARIOS,
    Incident,
    PriceChange,
    demo_plan,
)
from triton_models.simulation import LLAMA_8B, LLAMA_70B, SimulatedRequest

CALM_S, INCIDENT_S, SEED = 60.0, 40.0, 7


def _plan(incident: Incident, seed: int = SEED) -> list[PlannedRequest]:
    return demo_plan(CALM_S, INCIDENT_S, incident, seed)


def _of(requests: list[PlannedRequest], tenant: str, model: str) -> list[PlannedRequest]:
    return [r for r in requests if (r.tenant, r.model) == (tenant, model)]


def _bursts(requests: list[PlannedRequest]) -> dict[float, int]:
    return dict(Counter(r.at_s for r in requests))


def _tokens(request: PlannedRequest) -> TokenPrompt:
    assert isinstance(request.inputs, TokenPrompt)
    return request.inputs


# A price change is not in the traffic: that plan is calm from beginning to end.
BASE = _plan("price-change")


@pytest.mark.parametrize("incident", INCIDENTS)
def test_a_seed_makes_the_same_plan_and_another_seed_another(incident: Incident) -> None:
    assert _plan(incident) == _plan(incident)
    assert [r.inputs for r in _plan(incident)] != [r.inputs for r in _plan(incident, SEED + 1)]


@pytest.mark.parametrize("incident", INCIDENTS)
def test_a_plan_is_in_order_of_time_and_names_every_request_once(incident: Incident) -> None:
    plan = _plan(incident)
    assert all(a.at_s <= b.at_s for a, b in itertools.pairwise(plan))
    assert len({r.request_id for r in plan}) == len(plan)
    assert {r.phase for r in plan if r.at_s < CALM_S} == {"calm"}
    assert {r.phase for r in plan if r.at_s >= CALM_S} == {"incident"}
    assert plan[0].at_s >= 0
    assert plan[-1].at_s < CALM_S + INCIDENT_S + 1.25


@pytest.mark.parametrize(
    ("model", "tenants", "every_s"),
    [
        ("llama_8b_sim", {"acme": 6, "globex": 6}, 0.5),
        ("llama_70b_sim", {"initech": 8}, 1.0),
        ("tiny_llm", {"acme": 3, "globex": 3, "initech": 2}, 1.0),
        ("embedder", {"acme": 4, "globex": 4}, 1.0),
    ],
)
def test_calm_traffic_comes_in_equal_bursts_at_equal_distances(
    model: str, tenants: dict[str, int], every_s: float
) -> None:
    requests = [r for r in BASE if r.model == model]
    by_time: defaultdict[float, Counter[str]] = defaultdict(Counter)
    for request in requests:
        by_time[request.at_s][request.tenant] += 1
    assert all(burst == tenants for burst in by_time.values())
    assert len(by_time) == (CALM_S + INCIDENT_S) / every_s
    gaps = {round(b - a, 6) for a, b in itertools.pairwise(sorted(by_time))}
    assert gaps == {every_s}


def test_every_ten_seconds_of_calm_have_the_same_requests() -> None:
    windows: defaultdict[int, Counter[tuple[str, str]]] = defaultdict(Counter)
    for request in BASE:
        windows[int(request.at_s // 10)][request.tenant, request.model] += 1
    assert len(windows) == 10
    assert all(window == windows[0] for window in windows.values())
    assert sum(windows[0].values()) == 480


@pytest.mark.parametrize("model", ["llama_8b_sim", "llama_70b_sim"])
def test_tokens_of_calm_windows_vary_by_little(model: str) -> None:
    windows: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for request in BASE:
        if request.model == model:
            windows[request.tenant, int(request.at_s // 10)].append(_tokens(request).input_tokens)
    sums = [sum(window) for window in windows.values()]
    assert 0 < pstdev(sums) / fmean(sums) < 0.02


@pytest.mark.parametrize(
    ("model", "input_tokens", "output_tokens"),
    [("llama_8b_sim", 400, 60), ("llama_70b_sim", 600, 16)],
)
def test_tokens_are_drawn_about_their_means(
    model: str, input_tokens: int, output_tokens: int
) -> None:
    drawn = [_tokens(r) for r in BASE if r.model == model]
    assert fmean(t.input_tokens for t in drawn) == pytest.approx(input_tokens, rel=0.02)
    assert fmean(t.output_tokens for t in drawn) == pytest.approx(output_tokens, rel=0.02)
    assert 0.05 < pstdev(t.input_tokens for t in drawn) / input_tokens < 0.15
    assert all(0 < t.cached_input_tokens < t.input_tokens for t in drawn)
    assert all(t.output_tokens > 0 for t in drawn)


def test_texts_fit_the_small_models_context() -> None:
    prompts = [r.inputs for r in BASE if r.model == "tiny_llm"]
    assert all(isinstance(p, TextPrompt) for p in prompts)
    for prompt in prompts:
        assert isinstance(prompt, TextPrompt)
        assert 1 <= len(prompt.text.split()) <= 60
        assert 24 <= prompt.max_tokens <= 40
    texts = [r.inputs for r in BASE if r.model == "embedder"]
    assert all(isinstance(t, TextToEmbed) and t.text for t in texts)


def test_every_request_is_a_persons_and_a_person_has_one_tenant() -> None:
    tenants: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
    for request in BASE:
        tenants[request.team, request.project, request.user].add(request.tenant)
        assert request.team
        assert request.project
        assert request.user
    assert all(len(owners) == 1 for owners in tenants.values())
    assert {t for owners in tenants.values() for t in owners} == {"acme", "globex", "initech"}


@pytest.mark.parametrize("incident", INCIDENTS)
def test_an_incident_changes_only_its_culprit_and_only_from_its_start(incident: Incident) -> None:
    scenario = SCENARIOS[incident]
    plan = _plan(incident)

    def others(requests: list[PlannedRequest]) -> set[PlannedRequest]:
        return {
            r
            for r in requests
            if r.phase == "calm"
            or (r.tenant, r.model) != (scenario.expected_tenant, scenario.expected_model)
        }

    assert others(plan) == others(BASE)
    if incident != "price-change":
        assert set(plan) != set(BASE)


def _culprits(incident: Incident) -> tuple[list[PlannedRequest], list[PlannedRequest]]:
    """The culprit's requests in the incident, as they are and as they would have been."""
    scenario = SCENARIOS[incident]
    changed, base = (
        [
            r
            for r in _of(plan, scenario.expected_tenant, scenario.expected_model)
            if r.phase == "incident"
        ]
        for plan in (_plan(incident), BASE)
    )
    assert base
    return changed, base


def test_long_prompts_are_eight_times_as_long_and_nothing_else() -> None:
    changed, base = _culprits("long-prompts")
    assert LONG_PROMPT_FACTOR == 8
    assert changed == [
        replace(r, inputs=replace(_tokens(r), input_tokens=8 * _tokens(r).input_tokens))
        for r in base
    ]


def test_a_collapsed_batch_has_the_same_requests_one_at_a_time() -> None:
    changed, base = _culprits("batch-collapse")
    assert set(_bursts(base).values()) == {8}
    assert set(_bursts(changed).values()) == {1}
    gaps = {round(b.at_s - a.at_s, 6) for a, b in itertools.pairwise(changed)}
    assert gaps == {0.125}
    assert [replace(r, at_s=0) for r in changed] == [replace(r, at_s=0) for r in base]


def test_a_retry_storm_repeats_each_request_three_times_shortly_after() -> None:
    changed, base = _culprits("retry-storm")
    assert [r for r in changed if r.retry_of is None] == base
    retries: defaultdict[str, list[PlannedRequest]] = defaultdict(list)
    for request in changed:
        if request.retry_of is not None:
            retries[request.retry_of].append(request)
    originals = {r.request_id: r for r in base}
    assert retries.keys() == originals.keys()
    for request_id, again in retries.items():
        original = originals[request_id]
        assert len(again) == 3
        assert all(0 < r.at_s - original.at_s < 2 for r in again)
        assert all(
            replace(r, at_s=original.at_s, request_id=request_id, retry_of=None) == original
            for r in again
        )


def test_retries_come_together_in_bursts_of_their_own() -> None:
    changed, _ = _culprits("retry-storm")
    bursts = sorted(_bursts([r for r in changed if r.retry_of is not None]).items())
    assert {size for _, size in bursts[2:-2]} == {18}


@pytest.mark.parametrize("incident", INCIDENTS)
def test_the_simulated_models_answer_a_burst_before_the_next_one_comes(
    incident: Incident,
) -> None:
    # Or else requests would queue, and a collapsed batch would form again in the queue.
    for model, timing in (("llama_8b_sim", LLAMA_8B), ("llama_70b_sim", LLAMA_70B)):
        config = (Path(triton_models.__file__).parent / model / "config.pbtxt").read_text()
        (speedup,) = re.findall(r'"speedup" value { string_value: "(\d+)" }', config)
        bursts: defaultdict[float, list[SimulatedRequest]] = defaultdict(list)
        for request in _plan(incident):
            if request.model == model:
                tokens = _tokens(request)
                sequence = SimulatedRequest(
                    tokens.input_tokens, tokens.cached_input_tokens, tokens.output_tokens
                )
                timing.check(sequence)
                bursts[request.at_s].append(sequence)
        for (at_s, burst), (next_at_s, _) in itertools.pairwise(sorted(bursts.items())):
            assert timing.batch_ns(burst) / int(speedup) / 1e9 < next_at_s - at_s


def test_a_price_change_leaves_the_traffic_calm_and_says_what_to_change() -> None:
    change = SCENARIOS["price-change"].price_change
    assert change is not None
    assert change.model == "llama_70b_sim"
    assert str(change.factor) == "2.5"
    assert isinstance(change, PriceChange)
    assert all(SCENARIOS[i].price_change is None for i in INCIDENTS if i != "price-change")
    assert Counter(r.phase for r in BASE) == {"calm": 48 * 60, "incident": 48 * 40}


@pytest.mark.parametrize(
    ("incident", "driver", "tenant"),
    [
        ("long-prompts", "input_length", "acme"),
        ("batch-collapse", "gpu_time_per_token", "initech"),
        ("retry-storm", "volume", "globex"),
        ("price-change", "price", "initech"),
    ],
)
def test_each_incident_says_what_the_root_cause_search_should_find(
    incident: Incident, driver: str, tenant: str
) -> None:
    scenario = SCENARIOS[incident]
    assert scenario.incident == incident
    assert (scenario.expected_driver, scenario.expected_tenant) == (driver, tenant)


def test_without_an_incident_or_without_calm_there_is_one_phase() -> None:
    assert {r.phase for r in demo_plan(10, 0, "retry-storm", 1)} == {"calm"}
    assert {r.phase for r in demo_plan(0, 10, "retry-storm", 1)} == {"incident"}
    assert demo_plan(0, 0, "retry-storm", 1) == []


def test_two_tenants_of_a_model_do_not_send_the_same() -> None:
    acme, globex = (
        [_tokens(r) for r in _of(BASE, tenant, "llama_8b_sim")] for tenant in ("acme", "globex")
    )
    assert len(acme) == len(globex)
    assert sum(a == b for a, b in zip(acme, globex, strict=True)) < len(acme) / 20

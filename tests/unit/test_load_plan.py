"""A replay is planned before anything is sent: when, to which model, in whose name."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import pytest

from streams.replay.plan import (
    DEFAULT_TENANTS,
    InvalidPlan,
    PlannedRequest,
    TenantAssignment,
    TokenPrompt,
    parse_tenants,
    plan_replay,
)
from streams.replay.traces import TraceRequest


def _row(row: int, client: str | None = None, **fields: str) -> TraceRequest:
    return TraceRequest(float(row - 1), 400, 100, 60, client, row, **fields)


def _endless() -> Iterator[TraceRequest]:
    return (_row(n) for n in itertools.count(1))


def _plan(rows: Iterator[TraceRequest], speed: float, duration_s: float | None) -> list[str]:
    planned = plan_replay(
        rows, speed=speed, duration_s=duration_s, tenants=TenantAssignment(), model="llama_8b_sim"
    )
    return [f"{p.request_id}@{p.at_s}" for p in planned]


def test_a_row_becomes_a_request_with_all_its_fields() -> None:
    (planned,) = plan_replay(
        [_row(1, "client-7")],
        speed=2,
        duration_s=None,
        tenants=parse_tenants("client-7=acme"),
        model="llama_8b_sim",
        phase="warm",
        id_prefix="run-1",
    )
    assert planned == PlannedRequest(
        at_s=0.0,
        model="llama_8b_sim",
        tenant="acme",
        team="",
        project="",
        user="client-7",
        inputs=TokenPrompt(400, 100, 60),
        request_id="run-1-1",
        retry_of=None,
        phase="warm",
    )


def test_the_duration_is_wall_time_and_nothing_is_read_beyond_it() -> None:
    assert _plan(_endless(), speed=4, duration_s=1.0) == [
        "replay-1@0.0",
        "replay-2@0.25",
        "replay-3@0.5",
        "replay-4@0.75",
    ]


def test_a_row_that_names_its_tenant_and_model_keeps_them() -> None:
    (planned,) = plan_replay(
        [_row(1, "client-7", tenant="initech", model="llama_70b_sim")],
        speed=1,
        duration_s=None,
        tenants=parse_tenants("client-7=acme"),
        model="llama_8b_sim",
    )
    assert (planned.tenant, planned.model) == ("initech", "llama_70b_sim")


def test_rows_without_a_client_take_turns() -> None:
    assignment = TenantAssignment(("a", "b", "c"))
    assert [assignment.tenant_of(_row(n)) for n in range(1, 6)] == ["a", "b", "c", "a", "b"]


def test_clients_are_spread_over_the_tenants() -> None:
    assignment = TenantAssignment()
    counts = Counter(assignment.tenant_of(_row(1, f"client-{n}")) for n in range(300))
    assert set(counts) == set(DEFAULT_TENANTS)
    assert min(counts.values()) > 60


def test_a_client_is_the_same_tenants_in_every_process() -> None:
    assignment = TenantAssignment(("a", "b", "c"))
    # CRC-32 of "client-1" is 4035764838, of "client-2" 1770370012.
    assert assignment.tenant_of(_row(1, "client-1")) == ("a", "b", "c")[4035764838 % 3]
    assert assignment.tenant_of(_row(1, "client-2")) == ("a", "b", "c")[1770370012 % 3]


@pytest.mark.parametrize(
    "text",
    [
        "client-1=acme, client-2=globex,initech",
        "client-1=acme # the first\n\nclient-2=globex\ninitech\n",
    ],
)
def test_tenants_are_given_as_an_option_or_as_a_file(text: str) -> None:
    assignment = parse_tenants(text)
    assert dict(assignment.by_client) == {"client-1": "acme", "client-2": "globex"}
    assert assignment.tenants == ("initech",)
    assert assignment.tenant_of(_row(1, "client-3")) == "initech"


def test_without_names_for_the_others_they_get_the_default_tenants() -> None:
    assert parse_tenants("client-1=acme").tenants == DEFAULT_TENANTS
    assert parse_tenants("") == TenantAssignment()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("=acme", "'=acme'"),
        ("client-1=", "'client-1='"),
        ("c=a,c=b", "'c' belongs to both 'a' and 'b'"),
    ],
)
def test_a_tenants_option_that_makes_no_sense_is_refused(text: str, named: str) -> None:
    with pytest.raises(InvalidPlan, match="tenants") as refused:
        parse_tenants(text)
    assert named in str(refused.value)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_a_speed_that_is_not_above_zero_is_refused_before_anything_is_read(speed: float) -> None:
    with pytest.raises(InvalidPlan, match="speed"):
        plan_replay(
            _endless(), speed=speed, duration_s=1, tenants=TenantAssignment(), model="llama_8b_sim"
        )


@pytest.mark.parametrize("duration_s", [0.0, -1.0, float("nan")])
def test_a_duration_that_is_not_above_zero_is_refused(duration_s: float) -> None:
    with pytest.raises(InvalidPlan, match="duration_s"):
        _plan(_endless(), 1, duration_s)


def test_no_tenants_at_all_are_refused() -> None:
    with pytest.raises(InvalidPlan, match="tenants"):
        plan_replay(
            [], speed=1, duration_s=None, tenants=TenantAssignment(()), model="llama_8b_sim"
        )


@pytest.mark.parametrize("model", ["tiny_llm", "embedder"])
def test_a_model_that_takes_text_is_refused(model: str) -> None:
    with pytest.raises(InvalidPlan, match=f"'{model}' \\(row 1\\)"):
        list(
            plan_replay(
                [_row(1)], speed=1, duration_s=None, tenants=TenantAssignment(), model=model
            )
        )

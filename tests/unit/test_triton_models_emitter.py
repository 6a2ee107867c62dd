"""The emitter's pure parts: who pays, where an instance is, and how a batch becomes an event."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.apportion import COEFFICIENTS, EQUAL_SPLIT, RULES, AffineShapley, Turn
from metering.errors import MeteringError
from metering.finishing import usage_of_payload
from metering.names import clean
from metering.records import Timing, encode_head, encode_record
from metering.usage import UNATTRIBUTED, Outcome, parse_usage
from triton_models.emitter.facts import Facts, Process, facts_of, this_process
from triton_models.emitter.identity import Identity, identity_of
from triton_models.emitter.record import Served, asked_by, took

ROOT = Path(__file__).resolve().parents[2]
NOBODY = identity_of({})
PROCESS = Process("host-1", "0a1b2c3d-10-100", "11-200")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)
names = st.sampled_from(
    ["tenant", "team", "project", "user", "retry_of", "x-meter-tenant", "X-Meter-Retry-Of", "x"]
)
parameters = st.dictionaries(names | st.text(), json_values)
small = st.integers(0, 2**40)


def args(instance: str = "m_0_0", **given_parameters: str) -> dict[str, str]:
    config = {"parameters": {k: {"string_value": v} for k, v in given_parameters.items()}}
    return {
        "model_config": json.dumps(config),
        "model_name": "m",
        "model_version": "1",
        "model_instance_name": instance,
    }


@st.composite
def served(draw: st.DrawFn) -> Served:
    given_tokens, output = draw(small), draw(small)
    return Served(
        input_tokens=given_tokens,
        cached_input_tokens=draw(st.integers(0, given_tokens)),
        output_tokens=output,
        reasoning_tokens=draw(st.integers(0, output)),
    )


@dataclass(frozen=True)
class Asked:
    request_id: str
    identity: Identity
    outcome: Outcome
    rows: int
    served: Served


asked = st.builds(
    Asked,
    st.text(st.characters()),
    parameters.map(identity_of),
    st.sampled_from(["ok", "error", "failed", "cancelled"]),
    st.integers(1, 9),
    served(),
)


def record_of(facts: Facts, timing: Timing, batch: list[Asked]) -> bytes:
    taken = took(
        [a.rows for a in batch],
        [a.served for a in batch],
        others={n: a.outcome for n, a in enumerate(batch) if a.outcome != "ok"},
    )
    asked = asked_by([a.request_id for a in batch], [a.identity for a in batch])
    head = encode_head(facts.constant(), "chat", facts.recipe)
    return encode_record(head, 4, timing, asked, taken)


def answered(served: dict[str, Served]) -> list[Asked]:
    return [Asked(name, NOBODY, "ok", len(s.row_tokens) or 1, s) for name, s in served.items()]


@given(st.lists(asked, min_size=1, max_size=6), small, small, st.sampled_from(list(RULES)))
def test_whatever_a_client_sends_its_batch_can_be_written_and_read(
    batch: list[Asked], start_ns: int, took_ns: int, rule: str
) -> None:
    facts = facts_of(args(apportionment=rule, **dict.fromkeys(COEFFICIENTS, "9")), {}, PROCESS)
    timing = Timing(start_ns, start_ns + took_ns, 1)
    event = usage_of_payload(record_of(facts, timing, batch))
    assert parse_usage(event.model_dump_json().encode()) == event
    assert sum(r.gpu_ns for r in event.requests) == took_ns == event.gpu_ns
    assert event.apportionment_rule.startswith(f"{rule}/2")
    assert len(
        {r.request_id for r in event.requests if r.request_id.endswith(facts.source)}
    ) == sum(clean(a.request_id) == "" for a in batch)
    for a, r in zip(batch, event.requests, strict=True):
        told = (r.tenant, r.team, r.user, r.retry_of, r.identity_source, r.status, r.rows)
        i = a.identity
        assert told == (i.tenant, i.team, i.user, i.retry_of, i.source, a.outcome, a.rows)
        assert (r.input_tokens, r.output_tokens) == (a.served.input_tokens, a.served.output_tokens)


@given(json_values)
def test_a_cleaned_name_is_short_printable_and_stays_as_it_is(value: object) -> None:
    name = clean(value)
    assert len(name) <= 256
    assert name.isprintable()
    assert clean(name) == name
    name.encode()


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        ("acme", "acme"),
        ("  acme\n", ""),
        ("a\x00b", ""),
        ("\ud800", ""),
        ("x" * 300, ""),
        (42, "42"),
        (True, ""),
        (1.5, ""),
        (None, ""),
        (["acme"], ""),
        (10**5_000, ""),
    ],
    ids=[*"abcdefghijk"],
)
def test_a_name_is_itself_refused_or_absent(given_value: object, expected: str) -> None:
    assert clean(given_value) == expected


def test_a_body_parameter_goes_before_a_header_and_the_source_tells_whose_the_tenant_is() -> None:
    both = identity_of({"tenant": "body", "X-METER-TENANT": "head", "x-meter-team": "t"})
    assert (both.tenant, both.team, both.source) == ("body", "t", "parameter")
    header = identity_of({"tenant": "", "X-Meter-Tenant": "head", "x-meter-retry-of": "r"})
    assert (header.tenant, header.retry_of, header.source) == ("head", "r", "header")
    nobody = identity_of({"team": "t"})
    assert (nobody.tenant, nobody.team, nobody.source) == (UNATTRIBUTED, "t", "none")


def test_the_config_goes_before_the_environment_and_the_environment_before_the_default() -> None:
    env = {"METER_REGION": "us", "METER_DEPLOYMENT": "blue", "METER_SIM_SPEEDUP": "20"}
    bare = facts_of(args(), {}, PROCESS)
    assert (bare.region, bare.deployment, bare.accelerator) == ("local", "default", "cpu")
    assert (bare.speedup, bare.rule) == (1, EQUAL_SPLIT)
    placed = facts_of(args(region="eu", accelerator="H100", fixed_ps="7"), env, PROCESS)
    assert (placed.region, placed.deployment, placed.accelerator) == ("eu", "blue", "H100")
    rule = AffineShapley(7, 0, 0, "affine-shapley/2@default")
    assert (placed.speedup, placed.rule) == (1, rule)
    assert facts_of(args(speedup="10"), env, PROCESS).speedup == 20
    assert facts_of(args(speedup="10"), {}, PROCESS).speedup == 10


@pytest.mark.parametrize("bad", [{"speedup": "0"}, {"speedup": "x"}, {"fixed_ps": "-1"}])
def test_a_number_that_is_none_is_refused_by_name(bad: dict[str, str]) -> None:
    with pytest.raises(MeteringError, match=next(iter(bad))):
        facts_of(args(**bad), {}, PROCESS)


def test_two_instances_of_one_process_are_two_sources_of_one_boot() -> None:
    one, two = (facts_of(args(name), {}, PROCESS) for name in ("m_0_0", "m_0_1"))
    assert one.source == "host-1/0a1b2c3d-10-100/11-200/m_0_0"
    assert one.source != two.source
    assert one.boot_id == two.boot_id


def test_a_process_is_the_same_whenever_it_is_asked() -> None:
    assert this_process() == this_process()


def facts_with(rule: AffineShapley) -> Facts:
    return facts_of(
        args(
            fixed_ps=str(rule.fixed_ps),
            input_token_ps=str(rule.input_token_ps),
            output_token_ps=str(rule.output_token_ps),
        ),
        {},
        PROCESS,
    )


def test_cached_tokens_bear_no_prefill() -> None:
    batch = answered(
        {
            "fresh": Served(input_tokens=100),
            "cached": Served(input_tokens=100, cached_input_tokens=100),
        }
    )
    event = usage_of_payload(record_of(facts_with(AffineShapley(0, 5, 5)), Timing(0, 8, 0), batch))
    assert [r.gpu_ns for r in event.requests] == [8, 0]
    assert [r.input_tokens for r in event.requests] == [100, 100]


def test_padding_is_a_figure_of_its_own_per_request_and_per_batch() -> None:
    facts = facts_of(args(apportionment="padded-length", **{"input_token_ps": "5"}), {}, PROCESS)
    batch = answered(
        {
            "short": Served(input_tokens=10),
            "cached": Served(input_tokens=90, cached_input_tokens=80),
            "rows": Served(input_tokens=60, row_tokens=((10, 0), (50, 0))),
        }
    )
    event = usage_of_payload(record_of(facts, Timing(0, 200, 0), batch))
    assert [(r.gpu_ns, r.padding_gpu_ns) for r in event.requests] == [(10, 0), (10, 0), (180, 120)]
    assert event.padding_gpu_ns == 120
    assert parse_usage(event.model_dump_json().encode()) == event


def test_steps_that_a_model_tells_are_divided_by_the_tokens_in_them() -> None:
    facts = facts_of(args(apportionment="iteration-level"), {}, PROCESS)
    old = Served(input_tokens=5, output_tokens=2, turns=(Turn(0, 10, 0, 1), Turn(1, 90, 0, 1)))
    new = Served(input_tokens=8, turns=(Turn(1, 90, 8, 0),))
    batch = answered({"old": old, "new": new})
    event = usage_of_payload(record_of(facts, Timing(0, 100, 0), batch))
    assert [(r.input_gpu_ns, r.output_gpu_ns) for r in event.requests] == [(0, 20), (80, 0)]


def test_only_the_border_knows_tritons_utilities() -> None:
    knowing = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "triton_models").rglob("*.py")
        if "triton_python_backend_utils as" in path.read_text()
    ]
    assert knowing == ["triton_models/emitter/backend.py"]

"""From a server's record to a usage event: whatever was written, time is conserved."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.apportion import AffineShapley, ApportionmentRule
from metering.errors import UnreadableUsage
from metering.records import (
    CONSTANT,
    RuleRecipe,
    Timing,
    encode_head,
    encode_record,
    is_record,
    usage_of_payload,
)
from metering.usage import UsageBatch

NAMES: dict[str, Any] = {name: name for name in CONSTANT} | {"speedup": 1}
AFFINE = RuleRecipe("affine-shapley", (("fixed_ps", 5), ("output_token_ps", 7)), "2026-11-22.1")
long_ns = st.integers(0, 2**50)


def entry(status: str = "ok", tokens: int = 3, **more: Any) -> str:
    identity = ["acme", "", "", "", None, "header"]
    found = ["r", identity, status, 1, tokens, 0, tokens, 0]
    return json.dumps([*found, more] if more else found)


def event_of(
    timing: Timing, *entries: str, rule: ApportionmentRule | None = None, **changes: Any
) -> UsageBatch:
    head = encode_head(NAMES | changes, "chat", AFFINE if rule is None else None)
    return usage_of_payload(encode_record(head, 7, timing, entries or [entry()]), rule)


@given(
    wall_ns=long_ns,
    share=st.none() | st.fractions(0, 1),
    device=st.none() | st.fractions(0, 2),
    phases=st.none() | st.tuples(st.fractions(0, 1), st.fractions(0, 1)),
    tokens=st.lists(st.integers(0, 2**40), min_size=1, max_size=6),
)
def test_wall_time_is_the_sum_of_what_it_went_into(
    wall_ns: int, share: Any, device: Any, phases: Any, tokens: list[int]
) -> None:
    def part(fraction: Any) -> int | None:
        return None if fraction is None else int(wall_ns * fraction)

    prefill, decode = (None, None) if phases is None else phases
    timing = Timing(
        start_ns=9,
        end_ns=9 + wall_ns,
        end_epoch_ns=1,
        share_ns=part(share),
        device_ns=part(device),
        prefill_ns=part(prefill),
        decode_ns=part(None if decode is None else (1 - prefill) * decode),
    )
    event = event_of(timing, *(entry(tokens=count) for count in tokens))
    assert event.wall_ns == wall_ns
    assert (event.overlap_ns or 0) + event.stalled_ns + event.gpu_ns == wall_ns
    assert (event.overlap_ns is None) == (share is None)
    assert (event.timing_source == "cuda") == (device is not None)
    if device is not None and device >= 1:
        assert event.stalled_ns == 0
    assert sum(r.gpu_ns for r in event.requests) == event.gpu_ns
    if phases is not None:
        assert sum(r.prefill_gpu_ns or 0 for r in event.requests) == event.prefill_ns
        assert sum(r.decode_gpu_ns or 0 for r in event.requests) == event.decode_ns


def test_a_record_gives_the_same_event_every_time() -> None:
    head = encode_head(NAMES, "chat", AFFINE)
    payload = encode_record(head, 7, Timing(0, 100, 1), [entry(), entry(tokens=9)])
    assert is_record(payload)
    event = usage_of_payload(payload)
    assert event.model_dump_json() == usage_of_payload(payload).model_dump_json()
    assert usage_of_payload(event.model_dump_json().encode()) == event
    assert event.apportionment_rule == "affine-shapley/1@2026-11-22.1"


def test_a_rule_that_only_the_server_has_is_given_along() -> None:
    own = AffineShapley(0, 1, 0, rule_id="mine/3")
    event = event_of(Timing(0, 100, 1), entry(tokens=1), entry(tokens=3), rule=own)
    assert [r.gpu_ns for r in event.requests] == [25, 75]
    assert event.apportionment_rule == "mine/3"


def test_queue_time_and_rows_come_along_where_they_are_told() -> None:
    event = event_of(Timing(0, 100, 1), entry(queue_ns=17), entry())
    assert [r.queue_ns for r in event.requests] == [17, None]


def test_requests_that_never_reached_their_model_are_no_execution() -> None:
    event = event_of(Timing(5, 5, 1), entry("cache_hit"), entry("rejected", 0))
    assert (event.executed, event.gpu_ns) == (False, 0)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda d: d.update(record=2), r"record=2: this version reads 1"),
        (lambda d: d.pop("end_ns"), r"end_ns: missing"),
        (lambda d: d.update(end_ns=-1), r"negative|greater than or equal to 0"),
        (lambda d: d["requests"].append([1]), r"'\[1\]' is none of a record"),
        (lambda d: d["requests"].append(None), r"requests"),
        (lambda d: d.update(requests=[]), r"among no requests"),
        (lambda d: d.update(rule=["nobody", 1, {}, None]), r"apportionment='nobody'"),
        (lambda d: d["rule"].__setitem__(1, 99), r"version=99: this version has 1"),
        (lambda d: d.update(rule=None), r"record"),
        (lambda d: d["requests"][0].__setitem__(5, 4), r"cached_input_tokens=4 exceeds"),
        (lambda d: d["requests"][0].__setitem__(2, "lost"), r"status"),
        (lambda d: d["requests"].append(json.loads(entry("rejected"))), r"executed=False"),
        (lambda d: d.update(model=""), r"model"),
    ],
)
def test_a_record_that_can_not_be_right_is_refused_by_name(damage: Any, problem: str) -> None:
    head = encode_head(NAMES, "chat", AFFINE)
    document = json.loads(encode_record(head, 7, Timing(0, 100, 1), [entry()]))
    damage(document)
    with pytest.raises(UnreadableUsage, match=problem) as refusal:
        usage_of_payload(json.dumps(document, separators=(",", ":")).encode())
    assert refusal.value.reason == "invalid"


@given(st.integers(0, 400))
def test_a_record_that_is_cut_off_is_malformed(length: int) -> None:
    payload = encode_record(encode_head(NAMES, "chat", AFFINE), 7, Timing(0, 1, 1), [entry()])
    with pytest.raises(UnreadableUsage):
        usage_of_payload(payload[: min(length, len(payload) - 1)])

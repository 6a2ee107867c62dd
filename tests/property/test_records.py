"""From a server's record to a usage event: whatever was written, time is conserved."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.apportion import AffineShapley, ApportionmentRule
from metering.errors import UnreadableUsage
from metering.finishing import usage_of_payload
from metering.records import (
    CONSTANT,
    Asked,
    RuleRecipe,
    Timing,
    Took,
    encode_asked,
    encode_head,
    encode_record,
    is_record,
)
from metering.usage import UsageBatch

NAMES: dict[str, Any] = {name: name for name in CONSTANT} | {"speedup": 1}
AFFINE = RuleRecipe("affine-shapley", (("fixed_ps", 5), ("output_token_ps", 7)), "2026-11-22.1")
long_ns = st.integers(0, 2**50)


Columns = tuple[bytes, Took]


def columns(tokens: list[int], more: dict[str, dict[str, Any]] | None = None) -> Columns:
    payers = [["acme", "", "", "", None, "header"]]
    asked = encode_asked(Asked(["r"] * len(tokens), payers, [0] * len(tokens)))
    return asked, Took(tokens, 0, tokens, 0, more=more or {})


def event_of(
    timing: Timing, requests: Columns, rule: ApportionmentRule | None = None
) -> UsageBatch:
    head = encode_head(NAMES, "chat", AFFINE if rule is None else None)
    return usage_of_payload(encode_record(head, 7, timing, *requests), rule)


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
    event = event_of(timing, columns(tokens))
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


def test_executed_and_unexecuted_requests_are_no_batch() -> None:
    with pytest.raises(UnreadableUsage, match="executed=False"):
        event_of(Timing(5, 5, 1), columns([3, 0], {"1": {"status": "rejected"}}))


def test_numbers_of_numpy_are_numbers() -> None:
    event = event_of(Timing(0, 100, 1), columns([np.int64(3), np.int32(4)]))  # type: ignore[list-item]
    assert [r.input_tokens for r in event.requests] == [3, 4]


def test_a_record_gives_the_same_event_every_time() -> None:
    head = encode_head(NAMES, "chat", AFFINE)
    payload = encode_record(head, 7, Timing(0, 100, 1), *columns([3, 9]))
    assert is_record(payload)
    event = usage_of_payload(payload)
    assert event.model_dump_json() == usage_of_payload(payload).model_dump_json()
    assert usage_of_payload(event.model_dump_json().encode()) == event
    assert event.apportionment_rule == "affine-shapley/2@2026-11-22.1"


def test_a_rule_that_only_the_server_has_is_given_along() -> None:
    own = AffineShapley(0, 1, 0, rule_id="mine/3")
    event = event_of(Timing(0, 100, 1), columns([1, 3]), own)
    assert [r.gpu_ns for r in event.requests] == [25, 75]
    assert event.apportionment_rule == "mine/3"


def test_queue_time_and_rows_come_along_where_they_are_told() -> None:
    event = event_of(Timing(0, 100, 1), columns([3, 3], {"0": {"queue_ns": 17}}))
    assert [r.queue_ns for r in event.requests] == [17, None]


def test_requests_that_never_reached_their_model_are_no_execution() -> None:
    outcomes = {"0": {"status": "cache_hit"}, "1": {"status": "rejected"}}
    event = event_of(Timing(5, 5, 1), columns([3, 0], outcomes))
    assert (event.executed, event.gpu_ns) == (False, 0)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda d: d.update(record=2), r"record=2: this version reads 1"),
        (lambda d: d.pop("end_ns"), r"end_ns: missing"),
        (lambda d: d.update(end_ns=-1), r"negative|greater than or equal to 0"),
        (lambda d: d.update(requests=None), r"record"),
        (lambda d: d.update(requests=[], payer=[]), r"requests=\[\]: want a list"),
        (lambda d: d.update(rule=["nobody", 1, {}, None]), r"apportionment='nobody'"),
        (lambda d: d["rule"].__setitem__(1, 99), r"version=99: this version has 2"),
        (lambda d: d.update(rule=None), r"record"),
        (lambda d: d.update(model=""), r"model"),
    ],
)
def test_a_record_that_can_not_be_right_is_refused_by_name(damage: Any, problem: str) -> None:
    head = encode_head(NAMES, "chat", AFFINE)
    document = json.loads(encode_record(head, 7, Timing(0, 100, 1), *columns([3])))
    damage(document)
    with pytest.raises(UnreadableUsage, match=problem) as refusal:
        usage_of_payload(json.dumps(document, separators=(",", ":")).encode())
    assert refusal.value.reason == "invalid"


@given(st.integers(0, 400))
def test_a_record_that_is_cut_off_is_malformed(length: int) -> None:
    head = encode_head(NAMES, "chat", AFFINE)
    payload = encode_record(head, 7, Timing(0, 1, 1), *columns([3]))
    with pytest.raises(UnreadableUsage):
        usage_of_payload(payload[: min(length, len(payload) - 1)])

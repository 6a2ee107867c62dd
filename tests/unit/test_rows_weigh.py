"""Without a word of its model, a batch is divided by rows, and a share by stated weights."""

from __future__ import annotations

import json
from typing import Any

import pytest

from metering.apportion import BUILT_IN, EQUAL_SPLIT, RULES, Share, Work, kind_named, rule_named
from metering.apportion.shares import DEFAULT_PHASES
from metering.errors import MeteringError
from metering.finishing import usage_of_payload
from metering.records import CONSTANT, RuleRecipe, Timing, Took, encode_head, encode_record
from triton_models.emitter.facts import Facts, Process, facts_of, operation_of
from triton_models.emitter.record import asked_by_texts

HOST = Process("host-1", "0a1b2c3d-10-100", "11-200")
ALL_OF_IT = {"fixed_ps": 1}


def facts(parameters: dict[str, str] | None = None, **args: str) -> Facts:
    config = {"parameters": {n: {"string_value": v} for n, v in (parameters or {}).items()}}
    given = {
        "model_config": json.dumps(config),
        "model_name": "m",
        "model_version": "1",
        "model_instance_name": "m_0_0",
        "model_instance_kind": "CPU",
        "model_instance_device_id": "0",
    }
    return facts_of(given | args, {}, HOST)


@pytest.mark.parametrize("rule", sorted(BUILT_IN))
def test_a_request_with_31_rows_gets_31_shares(rule: str) -> None:
    """Nothing but the rows is known."""
    shares = rule_named(rule, {}).split(3200, [Work(0, 0, 31), Work(0, 0, 1)])
    assert [s.gpu_ns for s in shares] == [3100, 100]


@pytest.mark.parametrize("rule", ["affine-shapley", "padded-length", "run-to-longest"])
def test_what_is_there_once_per_batch_is_shared_by_rows(rule: str) -> None:
    shares = rule_named(rule, ALL_OF_IT).split(3200, [Work(5, 5, 31), Work(9, 0, 1)])
    assert [s.gpu_ns for s in shares] == [3100, 100]


def test_by_default_tokens_do_not_change_a_requests_share() -> None:
    shares = facts().rule.split(3200, [Work(7, 0, 31), Work(7_000, 3, 1)])
    assert [s.gpu_ns for s in shares] == [3100, 100]


@pytest.mark.parametrize("rule", sorted(BUILT_IN))
def test_an_old_version_is_what_it_was(rule: str) -> None:
    work = [Work(0, 0, 31), Work(0, 9, 1)]
    own = rule_named(rule, {"fixed_ps": 1} if RULES[rule].coefficients else {}, version=1)
    assert own.rule_id == f"{rule}/1"
    if rule != "iteration-level":
        assert own.split(100, work) == [Share(50, 50, 0), Share(50, 50, 0)]


def test_an_old_record_keeps_its_rule_and_its_id() -> None:
    head = encode_head(
        {name: name for name in CONSTANT} | {"speedup": 1},
        "chat",
        RuleRecipe("equal-split", version=1),
    )
    asked = asked_by_texts(["a", "b"], ["", ""])
    payload = encode_record(head, 7, Timing(0, 100, 1), asked, Took(1, 0, 9, 0, [31, 1]))
    event = usage_of_payload(payload)
    assert event.apportionment_rule == "equal-split/1"
    assert [(r.gpu_ns, r.output_gpu_ns) for r in event.requests] == [(50, 0)] * 2


def test_a_model_may_say_that_requests_weigh_alike() -> None:
    own = facts({"apportionment": "equal-split/1"})
    assert [s.gpu_ns for s in own.rule.split(100, [Work(0, 0, 31), Work(0, 0, 1)])] == [50, 50]
    assert own.recipe == RuleRecipe("equal-split", (), None, 1)


@pytest.mark.parametrize("name", ["equal-split/3", "equal-split/", "/1", "equal-split/x", "x/1"])
def test_a_rule_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(MeteringError, match=r"equal-split|apportionment="):
        facts({"apportionment": name})
    with pytest.raises(MeteringError):
        kind_named("equal-split", 3)


def test_without_calibration_output_has_its_part_and_the_id_says_by_what() -> None:
    (share,) = EQUAL_SPLIT.split(1_000, [Work(600, 200)])
    one, two = DEFAULT_PHASES
    assert share == Share(1_000, 1_000 * 600 * one // (600 * one + 200 * two), 400)
    assert facts().rule.rule_id == "equal-split/2@default"


@pytest.mark.parametrize(
    ("work", "expected"),
    [(Work(5, 0), (100, 0)), (Work(0, 5), (0, 100)), (Work(0, 0), (100, 0))],
)
def test_a_share_goes_to_the_phase_that_has_tokens(work: Work, expected: tuple[int, int]) -> None:
    (share,) = EQUAL_SPLIT.split(100, [work])
    assert (share.input_gpu_ns, share.output_gpu_ns) == expected


@pytest.mark.parametrize(
    ("kind", "accelerator", "device"),
    [
        ("CPU", "cpu", "cpu"),
        ("KIND_CPU", "cpu", "cpu"),
        ("GPU", "unknown-gpu", "gpu-0"),
        ("KIND_GPU", "unknown-gpu", "gpu-0"),
        ("MODEL", "unknown", "unknown"),
        ("AUTO", "unknown", "unknown"),
    ],
)
def test_an_instance_without_an_accelerators_name_is_no_cpu(
    kind: str, accelerator: str, device: str
) -> None:
    found = facts(model_instance_kind=kind)
    assert (found.accelerator, found.device) == (accelerator, device)
    assert facts({"accelerator": "H100"}, model_instance_kind=kind).accelerator == "H100"


@pytest.mark.parametrize(
    "bad",
    [
        {"accelerator": "H\0100"},
        {"accelerator": " H100"},
        {"region": "x" * 257},
        {"deployment": "a\u200db"},
    ],
)
def test_a_name_that_no_event_can_have_keeps_a_model_from_loading(bad: dict[str, str]) -> None:
    (name,) = bad
    with pytest.raises(MeteringError, match=name):
        facts(bad)


def test_a_model_whose_source_no_event_can_have_is_not_loaded() -> None:
    with pytest.raises(MeteringError, match="source="):
        facts(model_instance_name="m" * 250)


@pytest.mark.parametrize("operation", ["rerank", "", None, 7, ["chat"], "_OTHER", "Chat"])
def test_an_operation_that_there_is_not_keeps_a_model_from_loading(operation: Any) -> None:
    with pytest.raises(MeteringError, match=r"operation=.* of model 'm' is none of chat, "):
        operation_of(operation, "m")


def test_the_operations_of_opentelemetry_are_operations() -> None:
    for name in ("chat", "text_completion", "embeddings", "generate_content", "retrieval",
                 "create_agent", "invoke_agent", "invoke_workflow", "execute_tool"):  # fmt: skip
        assert operation_of(name, "m") == name

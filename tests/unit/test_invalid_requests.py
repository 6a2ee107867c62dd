"""What is invalid about a request is said of it; its batch mates are priced as ever."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.apportion import RULES, Share, Work
from metering.finishing import usage_of_payload
from metering.frame import frame_of
from metering.prices import GpuHourPrice, PriceBook
from metering.pricing import price_batch
from metering.pricing_columns import price
from metering.records import CONSTANT, RuleRecipe, Timing, Took, encode_head, encode_record
from metering.usage import UsageBatch
from metering.usage_columns import document_of, encode_columns
from metering.usage_struct import event_of
from triton_models.emitter.record import Served, asked_by_texts, recorder_of, rows_in, took

NAMES: dict[str, Any] = {name: name for name in CONSTANT} | {"speedup": 1}
AFFINE = RuleRecipe("affine-shapley", (("fixed_ps", 5), ("output_token_ps", 7)))
BY_ROWS = RuleRecipe("equal-split")
WALL_NS = 64_000 * 9
SOUND = Served({"Y": np.zeros((1, 2))}, None, False, 7, 1, 9, 2)
BOOK = PriceBook([GpuHourPrice(id="p", accelerator="accelerator", region="region",
    effective_from="2020-01-01T00:00:00Z", usd_per_gpu_hour=Decimal(4))])  # type: ignore[arg-type]  # fmt: skip


def recorded(
    served: list[Served],
    rule: RuleRecipe = BY_ROWS,
    operation: str = "chat",
    **timing: Any,
) -> UsageBatch:
    """As a server records it, both ways where it is usual, and a shipper reads it."""
    head = encode_head(NAMES, operation, rule)
    asked = asked_by_texts([f"r-{n}" for n in range(len(served))], ['{"tenant":"a"}'] * len(served))
    when = Timing(
        **({"start_ns": 0, "end_ns": WALL_NS, "end_epoch_ns": 1_780_000_000 * 10**9} | timing)
    )
    rows = [rows_in(s.outputs) or 1 for s in served]
    payload = encode_record(head, 7, when, asked, took(rows, served))
    recorder = recorder_of(head, batched=True)
    compiled = None if recorder is None else recorder.record(7, when, asked, served)
    assert compiled is None or json.loads(compiled) == json.loads(payload)
    return usage_of_payload(payload)


def marked(event: UsageBatch) -> list[int]:
    return [n for n, request in enumerate(event.requests) if request.invalid]


WRONG = [-1, 7.0, None, float("nan"), float("inf"), True, "7", "\ud800", b"\xff", [7], {}, object(),
    2**53, 2**63, 2**64, 10**5000, np.float32(7.5), np.bool_(True), np.array([7])]  # fmt: skip


@pytest.mark.parametrize("value", WRONG, ids=[str(n) for n in range(len(WRONG))])
@pytest.mark.parametrize(
    "field", ["input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens"]
)
def test_a_count_that_is_none_marks_its_request_and_no_other(field: str, value: Any) -> None:
    event = recorded([SOUND] * 63 + [SOUND._replace(**{field: value})])
    assert marked(event) == [63]
    wrong = event.requests[63]
    assert wrong.invalid.startswith(f"{field}=")
    assert getattr(wrong, field) == 0
    assert {r.gpu_ns for r in event.requests} == {WALL_NS // 64}
    for line in price_batch(event, BOOK):
        assert line.cost_usd == Decimal(1) / 10**8


@pytest.mark.parametrize("value", [np.int64(3), np.uint8(3), np.array(3)])
def test_numbers_of_numpy_are_numbers(value: Any) -> None:
    event = recorded([SOUND._replace(input_tokens=value)])
    assert (event.requests[0].input_tokens, event.requests[0].invalid) == (3, "")


@pytest.mark.parametrize(
    ("whole", "part"),
    [("input_tokens", "cached_input_tokens"), ("output_tokens", "reasoning_tokens")],
)
def test_of_a_part_above_its_whole_neither_is_known(whole: str, part: str) -> None:
    event = recorded([SOUND, SOUND._replace(**{whole: 7, part: 8})], AFFINE)
    wrong = event.requests[1]
    assert marked(event) == [1]
    assert wrong.invalid == f"{part}=8 exceeds {whole}=7"
    assert (getattr(wrong, whole), getattr(wrong, part)) == (0, 0)
    assert sum(r.gpu_ns for r in event.requests) == WALL_NS


@pytest.mark.parametrize(
    "phases",
    [
        (501, WALL_NS - 500),
        (WALL_NS + 1, 0),
        (-1, 5),
        (float("nan"), 5),
        (1.5, 5),
        ("5", 5),
        (True, 5),
        (10**5000, 5),
        (None, WALL_NS + 1),
    ],
    ids=[str(n) for n in range(9)],
)
def test_phases_that_are_none_of_the_wall_time_are_left_out(phases: tuple[Any, Any]) -> None:
    event = recorded([SOUND] * 2, prefill_ns=phases[0], decode_ns=phases[1])
    assert (event.prefill_ns, event.decode_ns, event.gpu_ns) == (None, None, WALL_NS)
    assert f"no phases of wall_ns={WALL_NS}" in event.invalid
    assert marked(event) == []
    lines = price_batch(event, BOOK)
    assert {line.batch_invalid for line in lines} == {event.invalid}
    assert all(line.cost_usd for line in lines)


def test_phases_of_the_whole_wall_time_are_phases() -> None:
    event = recorded([SOUND] * 2, prefill_ns=1, decode_ns=WALL_NS - 1)
    assert (event.prefill_ns, event.decode_ns, event.invalid) == (1, WALL_NS - 1, "")


@pytest.mark.parametrize("share", [-1, WALL_NS + 1, 0.5, "1", True])
def test_a_share_that_is_none_is_not_known(share: Any) -> None:
    event = recorded([SOUND], share_ns=share)
    assert (event.gpu_ns, event.overlap_ns) == (WALL_NS, None)
    assert event.invalid.startswith("share_ns=")


@pytest.mark.parametrize(
    "wrong",
    [
        {"row_tokens": ((1, 2), (3, 4))},
        {"row_tokens": ((1, -2),)},
        {"row_tokens": (1, 2)},
        {"row_tokens": "ab"},
        {"row_tokens": 5},
        {"row_tokens": [(1, float("nan"))]},
        {"turns": ((0, 1, 2),)},
        {"turns": ((0, -1, 2, 3),)},
        {"turns": ((0, True, 2, 3),)},
        {"turns": object()},
    ],
)
@pytest.mark.parametrize("rule", sorted(RULES))
def test_rows_and_turns_that_are_none_mark_their_request(wrong: Any, rule: str) -> None:
    recipe = RuleRecipe(rule, (("input_token_ps", 1), ("step_ps", 1), ("output_token_ps", 1)))
    event = recorded([SOUND, SOUND._replace(**wrong)], recipe)
    assert marked(event) == [1]
    assert event.requests[1].invalid.startswith(tuple(wrong))
    assert sum(r.gpu_ns for r in event.requests) == WALL_NS


def test_rows_in_an_array_of_numpy_are_rows() -> None:
    two = SOUND._replace(outputs={"Y": np.zeros((2, 1))}, row_tokens=np.array([[3, 4], [3, 5]]))
    assert (
        marked(recorded([SOUND, two], RuleRecipe("padded-length", (("input_token_ps", 1),)))) == []
    )


def test_turns_that_contradict_each_other_mark_both() -> None:
    told = [SOUND._replace(turns=((0, ns, 1, 1),)) for ns in (5, 5, 6)] + [SOUND]
    event = recorded(told, RuleRecipe("iteration-level"))
    assert marked(event) == [0, 1, 2]
    assert sum(r.gpu_ns for r in event.requests) == WALL_NS


@pytest.mark.parametrize("rows", [0, -1, 2**32, True, 1.0, None, "1", 2**32 - 1])
def test_rows_that_no_batch_has_mark_their_request(rows: Any) -> None:
    head = encode_head(NAMES, "chat", BY_ROWS)
    asked = asked_by_texts(["a", "b"], ["", ""])
    numbers = Took(1, 0, 1, 0, [1, rows])
    event = usage_of_payload(encode_record(head, 7, Timing(0, 100, 1), asked, numbers))
    assert marked(event) == [1]
    assert [r.rows for r in event.requests] == [1, 1]
    assert event.gpu_ns == 100


@pytest.mark.parametrize("column", ["input_tokens", "cached_input_tokens", "rows"])
def test_a_column_of_another_length_marks_every_request(column: str) -> None:
    head = encode_head(NAMES, "chat", BY_ROWS)
    asked = asked_by_texts(["a", "b"], ["", ""])
    numbers = Took(1, 0, 1, 0)._replace(**{column: [1, 1, 1]})
    event = usage_of_payload(encode_record(head, 7, Timing(0, 100, 1), asked, numbers))
    assert marked(event) == [0, 1]
    assert [r.gpu_ns for r in event.requests] == [50, 50]


def test_sums_that_no_batch_has_mark_who_is_large() -> None:
    event = recorded([SOUND._replace(input_tokens=2**53 - 1)] * 2 + [SOUND])
    assert marked(event) == [0, 1]
    assert sum(r.input_tokens for r in event.requests) == 7


def test_an_operation_that_is_none_is_said_and_the_batch_is_priced() -> None:
    event = recorded([SOUND], operation="rerank")
    assert event.requests[0].operation == "_OTHER"
    assert event.invalid.startswith("operation='rerank' is none of chat")


@pytest.mark.parametrize(
    "damage",
    [
        {"payer": [3]},
        {"payer": [None]},
        {"payer": [0, 0]},
        {"payers": [["acme"]]},
        {"payers": [[7, "", "", "", None, "none"]]},
        {"payers": [["", "", "", "", None, "none"]]},
        {"payers": [["x" * 257, "", "", "", None, "none"]]},
        {"payers": [["a", "", "", "", None, "nowhere"]]},
        {"payers": [["\ud800", "", "", "", None, "none"]]},
        {"payers": "a"},
        {"requests": [7.5]},
        {"requests": ["a\0b"]},
        {"more": {"0": {"status": "lost"}}},
        {"more": {"0": {"queue_ns": -1}}},
        {"more": {"0": {"queue_ns": float("nan")}}},
    ],
    ids=str,
)
def test_what_an_old_record_says_of_one_request_is_not_its_batchs(damage: dict[str, Any]) -> None:
    head = encode_head(NAMES, "chat", BY_ROWS)
    asked = asked_by_texts(["r"], [""])
    payload = encode_record(head, 7, Timing(0, 100, 1), asked, Took(1, 0, 1, 0))
    event = usage_of_payload(
        json.dumps(json.loads(payload) | damage, separators=(",", ":")).encode()
    )
    assert marked(event) == [0]
    assert event.requests[0].gpu_ns == 100
    assert usage_of_payload(encode_columns(event)) == event


@pytest.mark.parametrize("more", [[1], {"7": {}}, {"x": {}}, {"-1": {}}, {"0": 1}, {"1" * 50: {}}])
def test_what_belongs_to_no_request_is_said_of_the_batch(more: Any) -> None:
    head = encode_head(NAMES, "chat", BY_ROWS)
    payload = encode_record(head, 7, Timing(0, 9, 1), asked_by_texts(["r"], [""]), Took(1, 0, 1, 0))
    document = json.loads(payload) | {"more": more}
    event = usage_of_payload(json.dumps(document, separators=(",", ":")).encode())
    assert event.invalid.startswith("more")
    assert event.gpu_ns == 9


class _Broken:
    rule_id = "mine/1"

    def __init__(self, shares: Any) -> None:
        self._shares = shares

    def split(self, gpu_ns: int, work: Any) -> list[Share]:
        if isinstance(self._shares, Exception):
            raise self._shares
        return self._shares  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "shares",
    [ZeroDivisionError("no"), [], [Share(9, 9, 0)] * 3, [Share(-1, -1, 0), Share(10, 10, 0)],
     [Share(4.5, 4.5, 0)] * 2, [Share(9, 0, 0), Share(0, 0, 0)], None],
)  # fmt: skip
def test_a_rule_that_can_not_divide_a_batch_leaves_its_time_to_the_rows(shares: Any) -> None:
    head = encode_head(NAMES, "chat", None)
    asked = asked_by_texts(["a", "b"], ["", ""])
    payload = encode_record(head, 7, Timing(0, 9, 1), asked, Took(1, 0, 1, 0, [1, 2]))
    event = usage_of_payload(payload, _Broken(shares))
    assert sorted(r.gpu_ns for r in event.requests) != []
    assert sum(r.gpu_ns for r in event.requests) == 9
    assert event.apportionment_rule.startswith("equal-split/")
    assert event.invalid.startswith("mine/1 can't divide the batch")


def test_more_rows_than_a_rule_divides_are_divided_by_rows() -> None:
    recipe = RuleRecipe("padded-length", (("input_token_ps", 1),))
    head = encode_head(NAMES, "chat", recipe)
    asked = asked_by_texts(["a", "b"], ["", ""])
    payload = encode_record(head, 7, Timing(0, 9, 1), asked, Took(1, 0, 1, 0, [9000, 1]))
    event = usage_of_payload(payload)
    assert "at most 8192" in event.invalid
    assert event.gpu_ns == 9


anything = st.one_of(
    st.integers(), st.floats(), st.text(max_size=3), st.none(), st.booleans(),
    st.lists(st.integers(), max_size=2), st.binary(max_size=2), st.integers(0, 9),
)  # fmt: skip


@given(
    st.lists(st.builds(
        Served, st.just({}), st.none(), st.just(False), *[anything] * 4,
        row_tokens=anything | st.lists(st.tuples(anything, anything), max_size=3),
        turns=anything | st.lists(st.tuples(*[anything] * 4), max_size=3),
    ), min_size=1, max_size=4),
    st.sampled_from(sorted(RULES)), anything, anything, anything, anything,
)  # fmt: skip
def test_whatever_a_model_tells_its_batch_is_an_event_and_a_sound_request_is_unmarked(  # noqa: PLR0917
    told: list[Served], rule: str, share: Any, device: Any, prefill: Any, decode: Any
) -> None:
    recipe = RuleRecipe(rule, (("fixed_ps", 1), ("input_token_ps", 1), ("step_ps", 1)))
    times = {"share_ns": share, "device_ns": device, "prefill_ns": prefill, "decode_ns": decode}
    event = recorded([SOUND, *told], recipe, **times)
    assert event.requests[0].invalid == ""
    assert (event.requests[0].input_tokens, event.requests[0].output_tokens) == (7, 9)
    assert sum(r.gpu_ns for r in event.requests) == event.gpu_ns
    assert usage_of_payload(encode_columns(event)) == event
    by_columns = list(price(frame_of([event_of(document_of(event))]), BOOK))
    assert [(x.invalid, x.batch_invalid, x.cost_usd) for x in by_columns] == [
        (x.invalid, x.batch_invalid, x.cost_usd) for x in price_batch(event, BOOK)
    ]


def test_an_error_without_words_is_an_error() -> None:
    assert recorded([SOUND._replace(error="")]).requests[0].status == "error"


def test_a_work_of_rows_alone_is_work() -> None:
    assert Work(0, 0, 3).sequences() == [(0, 0)] * 3

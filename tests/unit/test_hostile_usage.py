"""Usage that was made to do harm: it is refused in a moment, and told what is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from metering.errors import UnreadableUsage
from metering.finishing import usage_of_payload
from metering.usage import UsageBatch, parse_usage

MakeBatch = Callable[..., UsageBatch]
HUGE = 10**3999
"""With as many digits as Python reads, nearly."""


def record(**changes: Any) -> dict[str, Any]:
    return {
        "record": 1,
        **dict.fromkeys(("source", "boot_id", "model", "model_version", "instance"), "a"),
        **dict.fromkeys(("accelerator", "device", "region", "deployment"), "a"),
        "speedup": 1,
        "operation": "chat",
        "rule": ["equal-split", 1, {}, None],
        "requests": ["r"],
        "payers": [["acme", "", "", "", None, "header"]],
        "payer": [0],
        "sequence": 7,
        "start_ns": 1,
        "end_ns": 400_000_001,
        "end_epoch_ns": 1_780_000_000 * 10**9,
        **dict.fromkeys(("share_ns", "device_ns", "prefill_ns", "decode_ns")),
        "input_tokens": [3],
        "cached_input_tokens": 0,
        "output_tokens": [2],
        "reasoning_tokens": 0,
        "rows": 1,
        "status": "ok",
        "more": {},
        **changes,
    }


def finish(**changes: Any) -> UsageBatch:
    return usage_of_payload(json.dumps(record(**changes), separators=(",", ":")).encode())


def test_a_record_without_changes_is_sound() -> None:
    assert finish().gpu_ns == 400_000_000


@pytest.mark.parametrize("field", ["start_ns", "end_ns", "end_epoch_ns"])
@pytest.mark.parametrize("value", ["1", [], {}, 1.0, 0.5, True, float("nan"), float("inf")])
def test_a_time_that_is_no_integer_is_not_reckoned_with(field: str, value: object) -> None:
    """A text times 400,000,000 is a text of 400 MB."""
    with pytest.raises(UnreadableUsage, match=rf"record: {field}=.* is no integer"):
        finish(**{field: value})


@pytest.mark.parametrize("payer", [-1, True, "0"])
def test_nobody_pays_for_whom_the_record_does_not_point_at(payer: object) -> None:
    (request,) = finish(payer=[payer]).requests
    assert (request.tenant, request.identity_source) == ("unattributed", "refused")
    assert request.invalid == f"payer={payer!r} is no place among the payers"


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": ["affine-shapley", 1, {"fixed_ps": 1.5, "input_token_ps": HUGE}, None]},
        {"rule": ["affine-shapley", 1, {"fixed_ps": 1e308, "input_token_ps": 1e308}, None]},
        {"end_ns": HUGE},
        {"sequence": HUGE},
    ],
)
def test_numbers_beyond_all_bounds_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UnreadableUsage) as error:
        finish(**changes)
    assert error.value.reason == "invalid"


@pytest.mark.parametrize("value", ["true", '"5"', "5.0", "5.5", "1e3", "NaN", "1e400"])
@pytest.mark.parametrize("field", ["sequence", "batch_size", "gpu_ns", "input_tokens", "rows"])
def test_what_is_like_an_integer_is_none(batch_of: MakeBatch, field: str, value: str) -> None:
    sound = batch_of().model_dump_json()
    wrong = re.sub(rf'"{field}":\d+', f'"{field}":{value}', sound, count=1)
    with pytest.raises(UnreadableUsage, match=field) as error:
        parse_usage(wrong.encode())
    assert error.value.reason == "invalid"


@pytest.mark.parametrize("value", ["1", '"yes"', '"true"'])
def test_what_is_like_true_is_not(batch_of: MakeBatch, value: str) -> None:
    wrong = batch_of().model_dump_json().replace('"executed":true', f'"executed":{value}')
    with pytest.raises(UnreadableUsage, match="executed"):
        parse_usage(wrong.encode())


@pytest.mark.parametrize("wrong", ["{}", "1", "null"])
def test_the_first_wrong_request_says_enough(batch_of: MakeBatch, wrong: str) -> None:
    """Else each of them costs a kilobyte, and a message holds millions."""
    sound = batch_of().model_dump_json()
    head = sound[: sound.index('"requests"')]
    with pytest.raises(UnreadableUsage) as error:
        parse_usage(f'{head}"requests":[{",".join([wrong] * 50_000)}]}}'.encode())
    cause = error.value.__cause__
    assert cause is not None
    assert cause.error_count() < 20  # type: ignore[attr-defined]


def test_what_is_wrong_is_told_in_few_words_whatever_came(batch_of: MakeBatch) -> None:
    own = [{"prefill_gpu_ns": 1}] * 3000
    told = batch_of(gpu_ns=3_000_000, prefill_ns=3000, requests=own)
    with pytest.raises(UnreadableUsage) as error:
        parse_usage(told.model_dump_json().replace('"prefill_ns":3000', '"prefill_ns":1').encode())
    assert error.value.detail.startswith("message: Value error, prefill_ns=1")
    assert len(error.value.detail) <= UnreadableUsage.MOST_DETAIL

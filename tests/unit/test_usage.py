"""What a usage event may say: its parts sum to its wholes, and its outcomes fit it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from metering.errors import UnreadableUsage
from metering.usage import UNEXECUTED, UsageBatch, parse_usage

MakeBatch = Callable[..., UsageBatch]


def reread(batch: UsageBatch, **changes: Any) -> UsageBatch:
    return parse_usage(json.dumps(batch.model_dump(mode="json") | changes).encode())


def test_an_event_from_before_the_newer_fields_is_read_with_their_defaults(
    batch_of: MakeBatch,
) -> None:
    newer = {"device", "executed", "overlap_ns", "stalled_ns", "prefill_ns", "decode_ns"}
    batch = batch_of()
    old = batch.model_dump_json(exclude=newer).encode()
    assert parse_usage(old) == batch


def test_a_wall_time_that_is_not_the_sum_of_its_parts_is_refused(batch_of: MakeBatch) -> None:
    shared = batch_of(gpu_ns=60, wall_ns=100, overlap_ns=30, stalled_ns=10)
    assert reread(shared) == shared
    with pytest.raises(UnreadableUsage, match=r"overlap_ns=31 .* is not wall_ns=100"):
        reread(shared, overlap_ns=31)


def test_phases_sum_to_those_of_the_requests(batch_of: MakeBatch) -> None:
    own = [{"prefill_gpu_ns": 3, "decode_gpu_ns": 1}, {"prefill_gpu_ns": 4, "decode_gpu_ns": 0}]
    told = batch_of(gpu_ns=100, prefill_ns=7, decode_ns=1, requests=own)
    assert reread(told) == told
    with pytest.raises(UnreadableUsage, match=r"prefill_ns=8 but its requests have \[3, 4\]"):
        reread(told, prefill_ns=8)
    with pytest.raises(UnreadableUsage, match=r"exceed gpu_ns=100"):
        reread(told, prefill_ns=7, decode_ns=94)


@pytest.mark.parametrize("status", sorted(UNEXECUTED))
def test_what_was_not_executed_took_no_gpu_time(batch_of: MakeBatch, status: str) -> None:
    seen = batch_of(gpu_ns=0, executed=False, requests=[{"status": status}])
    assert reread(seen) == seen
    with pytest.raises(UnreadableUsage, match=r"status='.*' in a batch with executed=True"):
        reread(seen, executed=True)
    with pytest.raises(ValueError, match=r"gpu_ns=1 though executed=False"):
        batch_of(gpu_ns=1, executed=False, requests=[{"status": status}])


def test_what_was_executed_is_not_among_what_was_not(batch_of: MakeBatch) -> None:
    with pytest.raises(ValueError, match=r"status='ok' in a batch with executed=False"):
        batch_of(gpu_ns=0, executed=False, requests=[{"status": "ok"}])

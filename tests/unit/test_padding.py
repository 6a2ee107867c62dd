"""Padding as its own figure, from the event to the window; and records from before it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from metering.prices import PriceBook
from metering.pricing import price_batch
from metering.usage import UsageBatch, parse_usage
from metering.windows import WindowState, count, window_key

MakeBatch = Callable[..., UsageBatch]
HOUR_NS = 3600 * 10**9


def test_no_request_has_more_padding_than_time(batch_of: MakeBatch) -> None:
    batch_of(gpu_ns=10, requests=[{"padding_gpu_ns": 10}])
    with pytest.raises(ValidationError, match="padding_gpu_ns=11 exceeds gpu_ns=10"):
        batch_of(gpu_ns=10, requests=[{"padding_gpu_ns": 11}])


def test_an_event_from_before_padding_was_told_has_none(batch_of: MakeBatch) -> None:
    document = json.loads(batch_of().model_dump_json())
    del document["requests"][0]["padding_gpu_ns"]
    assert parse_usage(json.dumps(document).encode()).padding_gpu_ns == 0


def test_padding_is_summed_from_lines_to_windows(batch_of: MakeBatch) -> None:
    batch = batch_of(gpu_ns=90, requests=[{"padding_gpu_ns": 7}, {"padding_gpu_ns": 5}])
    lines = price_batch(batch, PriceBook([]))
    assert [line.padding_gpu_ns for line in lines] == [7, 5]
    state = WindowState()
    count(state, lines, 0, retention_ns=HOUR_NS)
    window = state.windows[window_key(batch.end_epoch_ns, 10)]
    assert window.cohorts["acme", "tiny", "local"].padding_gpu_ns == 12 == batch.padding_gpu_ns

"""Rows that can be read never stop the detector, whatever they say."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.options import DetectorOptions
from detectors.spend import SpendDetector
from metering.costs import WindowRow
from metering.errors import UnreadableUsage
from metering.messages import Message
from metering.window_messages import BELOW_USD, window_row_of
from sinks.alertmanager import alert
from sinks.webhook import cloud_event

MOST = 2**64 - 1
STORED_BELOW_USD = 10**20
"""Of a Decimal(38, 18)."""
counts = st.one_of(st.integers(0, 3), st.integers(0, MOST), st.just(MOST))
costs = st.one_of(
    st.just(Decimal(0)),
    st.just(BELOW_USD - 1),
    st.just(Decimal("1e-18")),
    st.decimals(0, 1000, places=18),
)
COUNTS = (
    "requests", "retries", "unpriced_requests", "batch_size_sum", "input_tokens",
    "cached_input_tokens", "output_tokens", "gpu_ns", "input_gpu_ns", "output_gpu_ns",
)  # fmt: skip


@st.composite
def _rows(draw: st.DrawFn) -> WindowRow:
    drawn = {name: draw(counts) for name in COUNTS}
    drawn["unpriced_requests"] = min(drawn["unpriced_requests"], drawn["requests"])
    return WindowRow(
        window_start_ms=0, window_seconds=10, final=True,
        tenant=draw(st.sampled_from("ab")), model=draw(st.sampled_from("mn")),
        region=draw(st.sampled_from(["", "r"])), counted_to=draw(st.integers()),
        cost_usd=draw(costs), input_cost_usd=draw(costs), output_cost_usd=draw(costs),
        **drawn,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(_rows(), min_size=1, max_size=4), min_size=2, max_size=25))
def test_a_row_within_its_bounds_is_judged_and_what_is_found_can_be_stored_and_sent(
    windows: list[list[WindowRow]],
) -> None:
    detector = SpendDetector(DetectorOptions(floor_usd_per_hour=0.0, report_decreases=True))
    for n, drawn in enumerate(windows):
        rows = [row.model_copy(update={"window_start_ms": n * 10_000}) for row in drawn]
        stamp_ns = (n + 1) * 10 * 10**9
        for row in rows:
            assert window_row_of(Message(0, stamp_ns, row.model_dump_json().encode())) == row
        for anomaly in detector.observe(rows):
            alert(anomaly, 0)
            cloud_event(anomaly, "test")
            money = [anomaly.expected_usd, anomaly.observed_usd, anomaly.usd_per_hour]
            money += [cause.usd_per_hour for cause in anomaly.causes]
            assert all(abs(usd) < STORED_BELOW_USD for usd in money)


@pytest.mark.parametrize("name", ["tenant", "model", "region"])
@pytest.mark.parametrize("length", [0, 256, 257, 900_000])
def test_a_name_that_no_event_can_have_is_refused(name: str, length: int) -> None:
    """An anomaly has it several times, and would be too large for its topic, for ever."""
    row = WindowRow(
        window_start_ms=0, window_seconds=10, final=True, tenant="t", model="m", region="r",
        counted_to=1, cost_usd=Decimal(1), input_cost_usd=Decimal(1), output_cost_usd=Decimal(0),
        **dict.fromkeys(COUNTS, 1),
    ).model_copy(update={name: "\x01" * length})  # fmt: skip
    message = Message(0, 10**12, row.model_dump_json().encode())
    if length <= 256:
        assert window_row_of(message) == row
        return
    with pytest.raises(UnreadableUsage, match=f"{name} has {length} characters") as refused:
        window_row_of(message)
    assert refused.value.reason == "invalid"

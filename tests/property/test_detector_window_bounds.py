"""Windows at the bounds of what they can hold stop no detector."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.options import DetectorOptions
from detectors.spend import SpendDetector
from metering.costs import Anomaly, WindowRow
from metering.money import ATTO_PER_USD, usd
from metering.window_sums import MOST_COUNT, MOST_USD

DEAREST = MOST_USD * ATTO_PER_USD - 1
counts = st.sampled_from([0, 1, 1_000, MOST_COUNT])
asked = st.sampled_from([0, 1, 1_000, 10**9])
"""Requests come one by one."""
costs = st.sampled_from([0, 1, 10**18, DEAREST])
OPTIONS = DetectorOptions(min_windows=3)


@st.composite
def rows_of(draw: st.DrawFn, at: int, tenant: str) -> WindowRow:
    requests, unpriced = draw(asked), draw(st.sampled_from([0, 1]))
    whole = draw(costs)
    part = draw(st.sampled_from([0, whole]))
    gpu_ns, inputs = draw(counts), draw(counts)
    return WindowRow(
        window_start_ms=at * 10_000, window_seconds=10, tenant=tenant, model="m", region="eu",
        final=True, counted_to=at, requests=requests, retries=draw(st.sampled_from([0, requests])),
        unpriced_requests=min(requests, unpriced * requests), batch_size_sum=draw(counts),
        input_tokens=inputs, cached_input_tokens=draw(st.sampled_from([0, inputs])),
        output_tokens=draw(counts),
        gpu_ns=gpu_ns, input_gpu_ns=gpu_ns, output_gpu_ns=0, cost_usd=usd(whole),
        input_cost_usd=usd(part), output_cost_usd=usd(whole - part),
    )  # fmt: skip


@settings(max_examples=60)
@given(data=st.data(), calm=st.integers(0, 6))
def test_what_is_told_is_finite_and_can_be_stored(data: st.DataObject, calm: int) -> None:
    detector, told = SpendDetector(OPTIONS), list[Anomaly]()
    usual = [data.draw(rows_of(0, tenant)) for tenant in "ab"]
    for at in range(calm):
        told += detector.observe(
            [r.model_copy(update={"window_start_ms": at * 10_000}) for r in usual]
        )
    for at in range(calm, calm + data.draw(st.integers(1, 8))):
        told += detector.observe([data.draw(rows_of(at, tenant)) for tenant in "ab"])
    for anomaly in told:
        assert Anomaly.model_validate_json(anomaly.model_dump_json()) == anomaly
        assert abs(anomaly.usd_per_hour) < Decimal(10) ** 20
        assert all(abs(cause.usd_per_hour) < Decimal(10) ** 20 for cause in anomaly.causes)

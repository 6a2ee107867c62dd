"""What became of requests, as a window counts it."""

from __future__ import annotations

from collections.abc import Callable

from metering.costs import WindowRow
from metering.prices import PriceBook
from metering.pricing import price_batch
from metering.usage import UsageBatch
from metering.windows import WindowState, close, count

MakeBatch = Callable[..., UsageBatch]


def window_of(*batches: UsageBatch) -> WindowRow:
    state = WindowState()
    for offset, batch in enumerate(batches):
        assert count(state, price_batch(batch, PriceBook([])), offset, retention_ns=10**9) == []
    row, *_ = close(state, 2**62, provisional=False)
    return row


def test_gpu_time_of_answers_that_nobody_got_is_wasted(batch_of: MakeBatch) -> None:
    outcomes = ("ok", "error", "failed", "cancelled")
    row = window_of(batch_of(gpu_ns=40, requests=[{"status": s} for s in outcomes]))
    assert (row.requests, row.gpu_ns, row.wasted_gpu_ns) == (4, 40, 30)


def test_a_cache_hit_is_a_request_and_what_was_refused_is_counted_apart(
    batch_of: MakeBatch,
) -> None:
    refused = ("rejected", "timed_out", "cancelled_in_queue")
    seen = [{"status": s} for s in (*refused, "cache_hit")]
    row = window_of(batch_of(0), batch_of(1, gpu_ns=0, executed=False, requests=seen))
    assert (row.requests, row.cache_hits, row.refused_requests) == (2, 1, 3)
    assert row.input_tokens == 200

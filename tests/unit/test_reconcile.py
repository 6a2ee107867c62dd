"""Stored usage against the server's counters: what agrees, and what is told apart."""

from __future__ import annotations

import io
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from metering.capacity import BatchStats, Failures, ModelCounters
from metering.reconciliation import (
    EXECUTION_NS,
    FIRST_EXECUTION_NS,
    GPU_TOLERANCE_PERCENT,
    Bounds,
    Snapshot,
    Tally,
    Verdict,
    confirm,
    judge,
    percent,
)
from streams.reconcile import as_json, by_model, earlier_json
from streams.reconcile_table import earlier_table, outcome_table, verdict_table

NS = 10**9
GPU_NS = 100 * NS
ALLOWED_NS = GPU_NS * GPU_TOLERANCE_PERCENT // 100 + FIRST_EXECUTION_NS + 10 * EXECUTION_NS


def counters(**changes: Any) -> ModelCounters:
    """Ten executions of four rows, each row a request, and all answered."""
    values = {
        "model": "tiny", "version": "1", "successes": 40, "failures": Failures(),
        "cache_hits": 0, "cache_misses": 0, "queue_ns": 0,
        "batch_stats": (BatchStats(size=4, executions=10, compute_infer_ns=GPU_NS),),
        **changes,
    }  # fmt: skip
    return ModelCounters(**values)


def tally(**changes: int) -> Tally:
    values = {"executions": 10, "rows": 40, "gpu_ns": GPU_NS, "answered": 40, "processes": 1}
    return Tally(**(values | changes))


def verdict(
    server: ModelCounters | None = None,
    high: Tally | None = None,
    low: Tally | None = None,
    time_ns: int = 5,
) -> Verdict:
    snapshot = Snapshot(host="h", boot_id="b", time_ns=time_ns, asked_ns=time_ns + 1)
    high = tally() if high is None else high
    return judge(snapshot, server or counters(), Bounds(high if low is None else low, high))


def test_equal_counts_and_a_little_less_time_agree() -> None:
    found = verdict(high=tally(gpu_ns=GPU_NS - ALLOWED_NS))
    assert found.agrees
    assert (found.requests, found.attributed, found.inferred, found.missing) == (40, 40, 0, 0)
    assert found.coverage_percent == Decimal("100.00")


def test_a_little_less_time_than_is_allowed_or_any_more_does_not_agree() -> None:
    less = verdict(high=tally(gpu_ns=GPU_NS - ALLOWED_NS - 1))
    assert less.discrepancies == ("gpu_ns",)
    assert less.part("gpu_ns", "missing") == 1
    more = verdict(high=tally(gpu_ns=GPU_NS + 1))
    assert more.discrepancies == ("gpu_ns",)
    assert more.part("gpu_ns", "surplus") == 1
    each = verdict(high=tally(gpu_ns=GPU_NS - ALLOWED_NS - 1, processes=2))
    assert each.agrees, "every process has a first execution"


@pytest.mark.parametrize("quantity", ["executions", "rows", "answered"])
@pytest.mark.parametrize("change", [-1, 1])
def test_one_more_or_less_does_not_agree(quantity: str, change: int) -> None:
    found = verdict(high=tally(**{quantity: getattr(tally(), quantity) + change}))
    assert found.discrepancies == (quantity,)
    assert not found.agrees


def test_what_may_or_may_not_be_in_the_snapshot_agrees_either_way() -> None:
    for executions in (8, 9, 10):
        low, high = tally(executions=executions), tally(executions=executions + 2)
        found = verdict(low=low, high=high).of("executions")
        assert found is not None
        assert found.agrees
        assert found.metered == 10


def test_what_never_reached_the_model_is_inferred_where_no_line_tells_of_it() -> None:
    server = counters(successes=43, cache_hits=3, failures=Failures(rejected=4, cancelled=2))
    found = verdict(server, tally(cache_hits=1, timed_out=4))
    assert found.agrees
    assert (found.requests, found.attributed, found.inferred) == (49, 45, 4)
    assert found.part("cache_hits", "inferred") == 2
    assert found.part("cancelled_in_queue", "inferred") == 2
    assert found.coverage_percent == 100


def test_more_cache_hits_than_the_server_has_counted_do_not_agree() -> None:
    assert verdict(high=tally(cache_hits=1)).discrepancies == ("cache_hits",)


def test_what_a_front_gave_up_before_tritons_queue_is_beyond_what_triton_counts() -> None:
    found = verdict(
        counters(failures=Failures(rejected=1)),
        tally(timed_out=3, cancelled_in_queue=2, rejected=7),
    )
    assert found.agrees
    assert (found.requests, found.attributed, found.uncounted) == (41, 41, 2 + 2 + 7)


def test_a_failed_request_is_missing_where_its_batch_is() -> None:
    server = counters(successes=36, failures=Failures(backend=4))
    lost = verdict(server, tally(executions=9, rows=36, answered=36))
    assert set(lost.discrepancies) == {"executions", "rows", "failed"}
    assert (lost.missing, lost.missing_executions) == (4, 1)
    assert lost.coverage_percent == Decimal("90.00")
    whole = verdict(server, tally(answered=36, failed=4))
    assert whole.agrees


def test_a_failure_without_an_execution_is_of_a_dead_process_and_inferred() -> None:
    found = verdict(counters(failures=Failures(backend=5, other=1)))
    assert found.agrees
    assert (found.inferred, found.missing) == (6, 0)


def test_without_metrics_only_what_is_known_is_compared() -> None:
    found = verdict(counters(failures=None), tally(failed=3, timed_out=2))
    assert found.agrees
    assert found.of("failed") is None
    assert found.part("failed", "server") == 0
    assert found.requests == 40


def test_coverage_is_rounded_down_so_that_100_says_that_none_is_missing() -> None:
    assert percent(10**9 - 1, 10**9) == Decimal("99.99")
    assert percent(0, 0) == Decimal("100.00")
    assert percent(1, 3) == Decimal("33.33")


def test_a_discrepancy_is_confirmed_by_the_next_snapshot_of_the_same_server() -> None:
    first = verdict(high=tally(executions=9, rows=39), time_ns=5)
    second = verdict(high=tally(executions=9), time_ns=6)
    assert confirm(second, first).confirmed == ("executions",)
    assert confirm(first, None).confirmed == ()
    assert confirm(first, second).confirmed == (), "it is older"
    other = second.model_copy(update={"boot_id": "other"})
    assert confirm(other, first).confirmed == ()
    assert confirm(verdict(time_ns=7), second).confirmed == ()


def test_a_model_that_has_done_nothing_agrees_with_nothing() -> None:
    assert verdict(counters(successes=0, batch_stats=()), Tally()).agrees
    assert not verdict(counters(successes=0, batch_stats=()), Tally(gpu_ns=1)).agrees


def test_a_verdict_is_the_same_after_its_way_through_kafka() -> None:
    found = confirm(verdict(high=tally(executions=9)), None)
    assert Verdict.model_validate_json(found.model_dump_json()) == found


def test_the_json_has_both_sides_of_everything() -> None:
    server = counters(failures=Failures(rejected=2))
    document = as_json(verdict(server, tally(executions=9)))
    assert document["executions"] == {"server": 10, "metered": 9}
    assert document["gpu_ns"] == {"server": GPU_NS, "metered": GPU_NS}
    assert document["outcomes"]["timed_out"] == {
        "server": 2, "metered": 0, "inferred": 2, "missing": 0, "surplus": 0,
    }  # fmt: skip
    assert document["coverage_percent"] == "100.00"
    assert document["discrepancies"] == ["executions"]
    assert document["agrees"] is False


def test_versions_are_told_apart_where_a_model_has_several() -> None:
    two = verdict(counters(version="2"))
    assert list(by_model([verdict()])) == ["tiny"]
    assert list(by_model([verdict(), two])) == ["tiny/1", "tiny/2"]


def shown(verdicts: Sequence[Verdict]) -> str:
    out = io.StringIO()
    for table in (verdict_table(verdicts), outcome_table(verdicts)):
        Console(file=out, width=80).print(table)
    return out.getvalue()


def test_the_tables_show_both_numbers_where_they_differ() -> None:
    server = counters(failures=Failures(rejected=2))
    text = shown([verdict(server, tally(executions=9, gpu_ns=90 * NS, answered=39, rejected=1))])
    assert "9 of 10" in text
    assert "90.0%" in text
    assert "97.61%" in text
    assert "before the queue" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "–" in shown([verdict(counters(successes=0, batch_stats=()), Tally())])


def test_what_may_be_missing_of_gpu_time_is_said_as_it_is_allowed() -> None:
    """10 %, and what each execution and each process may take: of a short time far more."""
    at_most = verdict(high=tally(gpu_ns=GPU_NS - ALLOWED_NS))
    assert as_json(at_most)["gpu_ns_may_be_missing"] == ALLOWED_NS
    assert "89.7%  89.7%" in shown([at_most])
    below = verdict(high=tally(gpu_ns=GPU_NS - ALLOWED_NS - NS))
    assert "88.7%  89.7%" in shown([below])
    short = verdict(counters(batch_stats=(BatchStats(size=4, executions=10, compute_infer_ns=3),)))
    assert "0.0%" in shown([short])


def test_requests_that_were_cancelled_or_answered_with_an_error_are_not_shown_as_answered() -> None:
    found = verdict(high=tally(errors=2, cancelled=3))
    assert found.agrees
    lines = [line.split() for line in shown([found]).splitlines()]
    assert ["tiny", "executed", "40", "40", "–", "–"] in lines
    assert ["answered", "35"] in lines
    assert ["answered", "with", "an", "error", "2"] in lines
    assert ["cancelled", "while", "executed", "3"] in lines
    assert (as_json(found)["cancelled"], as_json(found)["answered_with_error"]) == (3, 2)


def test_earlier_servers_are_shown_with_what_does_not_agree() -> None:
    lost = verdict(high=tally(executions=9, rows=36, answered=36), time_ns=1_780_000_000 * NS)
    out = io.StringIO()
    Console(file=out, width=100).print(earlier_table([lost]))
    text = " ".join(out.getvalue().split())
    assert "tiny 2026-05-28 20:26:40 40 4 90.00% executions, rows, answered" in text
    (document,) = earlier_json([lost])
    assert (document["boot_id"], document["missing"]) == ("b", 4)
    assert document["compared_at"] == "2026-05-28T20:26:40.000000000Z"

"""Laws of reconciling: whatever the order of batches, snapshots, restarts and reloads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from metering.capacity import (
    BatchStats,
    CapacityHeartbeat,
    Failures,
    InstanceCapacity,
    ModelCounters,
)
from metering.counted import Counting, Part, Question, answer, look, question, resume
from metering.reconciliation import SLACK_NS, Tally, Verdict

S = 10**9
MINUTE = 60 * S
HOUR_S = 3600


@dataclass(frozen=True)
class Batch:
    """``counted_ns``: when the server has it in its counters, after its end."""

    end_ns: int
    counted_ns: int
    rows: int
    failed: bool


@dataclass(frozen=True)
class Look:
    """A snapshot asked for at ``time_ns``, in fact taken at ``taken_ns``, there by ``asked_ns``."""

    time_ns: int
    taken_ns: int
    asked_ns: int


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    end_ns = draw(st.integers(1, 3 * HOUR_S)) * S
    late_ns = draw(st.integers(0, SLACK_NS - 1))
    return Batch(end_ns, end_ns + late_ns, draw(st.integers(1, 9)), draw(st.booleans()))


@st.composite
def looks(draw: st.DrawFn) -> Look:
    time_ns = draw(st.integers(1, 3 * HOUR_S)) * S + draw(st.integers(0, S))
    taken_ns = time_ns + draw(st.integers(0, S))
    return Look(time_ns, taken_ns, taken_ns + draw(st.integers(0, S)))


Batches = st.lists(batches(), max_size=30)
Looks = st.lists(looks(), min_size=1, max_size=12, unique_by=lambda k: k.time_ns).map(
    lambda found: sorted(found, key=lambda k: k.time_ns)
)
AT_REST = Look(4 * HOUR_S * S, 4 * HOUR_S * S, 4 * HOUR_S * S)


def counters(
    executed: Iterable[Batch], taken_ns: int, *, loaded_ns: int = 0, timeouts: int = 0
) -> ModelCounters:
    """As the server has them then; those of failures are older than the last load."""
    known = [b for b in executed if b.counted_ns <= taken_ns]
    since = [b for b in known if b.end_ns > loaded_ns]
    return ModelCounters(
        model="m",
        version="1",
        successes=sum(b.rows for b in since if not b.failed),
        failures=Failures(backend=sum(b.rows for b in known if b.failed), rejected=timeouts),
        cache_hits=0,
        cache_misses=0,
        queue_ns=0,
        batch_stats=tuple(
            BatchStats(size=b.rows, executions=1, compute_infer_ns=b.rows * S) for b in since
        ),
    )


def count(stored: Iterable[Batch], asked: Question) -> dict[Part, Tally]:
    """What the query does."""
    found: dict[Part, Tally] = {}
    for batch in stored:
        if asked.after_ns < batch.end_ns <= asked.asked_ns:
            part: Part = "late"
            if batch.end_ns <= asked.before_ns:
                part = "between"
            elif batch.end_ns <= asked.settles_ns:
                part = "settled"
            elif batch.end_ns <= asked.early_ns:
                part = "early"
            tally = Tally(
                executions=1,
                rows=batch.rows,
                gpu_ns=batch.rows * S,
                answered=0 if batch.failed else batch.rows,
                failed=batch.rows if batch.failed else 0,
                processes=1,
            )
            found[part] = found.get(part, Tally()) + tally
    return found


def beat(at: Look, process_ns: int) -> CapacityHeartbeat:
    process = InstanceCapacity(
        source="h/b/1/m_0", model="m", device="cpu", wall_ns=process_ns, busy_ns=0, batch_ns=0,
        idle_ns=0, executions=0,
    )  # fmt: skip
    return CapacityHeartbeat(
        source="s", sequence=at.time_ns, host="h", boot_id="b", time_ns=at.time_ns,
        asked_ns=at.asked_ns, triton_answers=True, instances=(process,) if process_ns else (),
    )  # fmt: skip


def judged(
    counting: Counting, at: Look, told: ModelCounters, stored: Iterable[Batch], process_ns: int = 0
) -> tuple[Verdict, Counting]:
    heard = beat(at, process_ns)
    counting = look(counting, heard, told)
    asked = question(counting, heard)
    counting = answer(counting, asked, heard, told, count(stored, asked))
    assert counting.last is not None
    return counting.last, counting


@given(Batches, Looks, st.sets(st.integers(0, 11)))
def test_no_alarm_while_batches_are_in_flight_whenever_one_looks_and_restarts(
    executed: list[Batch], snapshots: list[Look], restarts: set[int]
) -> None:
    counting = Counting()
    for n, at in enumerate(snapshots):
        verdict, counting = judged(counting, at, counters(executed, at.taken_ns), executed)
        assert verdict.agrees, verdict
        assert verdict.coverage_percent == 100
        if n in restarts:
            counting = resume(verdict)


@given(st.lists(batches(), min_size=1, max_size=30), st.data(), Looks, st.sets(st.integers(0, 11)))
def test_a_lost_batch_is_found_at_rest_to_the_row_and_heals_when_it_comes(
    executed: list[Batch], data: st.DataObject, snapshots: list[Look], restarts: set[int]
) -> None:
    lost = data.draw(st.sampled_from(range(len(executed))))
    stored = [b for n, b in enumerate(executed) if n != lost]
    counting = Counting()
    for n, at in enumerate(snapshots):
        verdict, counting = judged(counting, at, counters(executed, at.taken_ns), stored)
        assert all(c.surplus == 0 for c in verdict.comparisons)
        if n in restarts:
            counting = resume(verdict)
    verdict, counting = judged(counting, AT_REST, counters(executed, AT_REST.taken_ns), stored)
    assert verdict.missing_executions == 1
    assert verdict.part("rows", "missing") == verdict.missing == executed[lost].rows
    assert verdict.coverage_percent < 100
    later = replace(AT_REST, time_ns=AT_REST.time_ns + S, asked_ns=AT_REST.asked_ns + S)
    verdict, counting = judged(counting, later, counters(executed, later.taken_ns), stored)
    assert set(verdict.confirmed) >= {"executions", "rows"}
    healed = replace(later, time_ns=later.time_ns + S, asked_ns=later.asked_ns + S)
    verdict, _ = judged(counting, healed, counters(executed, healed.taken_ns), executed)
    assert verdict.agrees


@given(Batches, Looks)
def test_what_is_settled_gives_the_same_bounds_as_counting_all_again(
    executed: list[Batch], snapshots: list[Look]
) -> None:
    counting = Counting()
    for at in snapshots:
        told = counters(executed, at.taken_ns)
        verdict, counting = judged(counting, at, told, executed)
        again, _ = judged(Counting(), at, told, executed)
        assert verdict.comparisons == again.comparisons


@given(Batches, Looks, st.integers(1, 3 * HOUR_S), st.integers(0, 5), st.sets(st.integers(0, 11)))
def test_a_model_that_is_loaded_again_is_no_alarm(
    executed: list[Batch],
    snapshots: list[Look],
    loaded_s: int,
    timeouts: int,
    restarts: set[int],
) -> None:
    loaded_ns = loaded_s * S
    # Triton waits for what is running before it lets a model go.
    whole = [b for b in executed if not b.end_ns <= loaded_ns < b.counted_ns]
    counting = Counting()
    for n, at in enumerate(snapshots):
        counters_since_ns = loaded_ns if at.taken_ns >= loaded_ns else 0
        process_since_ns = loaded_ns if at.asked_ns >= loaded_ns else 0
        told = counters(whole, at.taken_ns, loaded_ns=counters_since_ns, timeouts=timeouts)
        verdict, counting = judged(counting, at, told, whole, at.asked_ns - process_since_ns)
        assert verdict.agrees, verdict
        if n in restarts:
            counting = resume(verdict)

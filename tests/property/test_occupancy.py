"""Laws of the occupancy board's arithmetic: against a sweep that looks at every nanosecond."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering import occupancy
from metering.errors import MeteringError
from metering.occupancy import FREE, SLOTS, UNITS, Load, Slot
from metering.overlap import Interval, divide_busy_time, union_ns


class Event(NamedTuple):
    at_ns: int
    slot: int
    kind: Literal["begin", "end", "abandon"]


class Ran(NamedTuple):
    """A batch as the board has seen it; ``share_ns`` is ``None`` if it was abandoned."""

    slot: int
    start_ns: int
    end_ns: int
    share_ns: int | None


@st.composite
def histories(draw: st.DrawFn, most_slots: int = 5) -> list[Event]:
    """Begins and ends in the order of time, until nothing runs."""
    slots = draw(st.integers(1, most_slots))
    steps = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, slots - 1)), max_size=40))
    events, running, now = list[Event](), set[int](), 0
    for passed, slot in steps:
        now += passed
        if slot in running:
            running.remove(slot)
            events.append(Event(now, slot, draw(st.sampled_from(["end", "end", "abandon"]))))
        else:
            running.add(slot)
            events.append(Event(now, slot, "begin"))
    for slot in sorted(running):
        now += draw(st.integers(0, 9))
        events.append(Event(now, slot, "end"))
    return events


def played(events: Iterable[Event], shift_ns: int = 0) -> tuple[Load, dict[int, Slot], list[Ran]]:
    load = Load(shift_ns, shift_ns)
    slots = dict[int, Slot]()
    ran = list[Ran]()
    for at_ns, n, kind in events:
        now_ns = at_ns + shift_ns
        slot = slots.get(n, Slot(opened_ns=shift_ns))
        began_ns, share_ns = slot.began_ns, None
        if kind == "begin":
            load, slots[n] = occupancy.begin(load, slot, now_ns)
        elif kind == "end":
            load, slots[n], share_ns = occupancy.end(load, slot, now_ns)
        else:
            load, slots[n] = occupancy.abandon(load, slot, now_ns)
        if began_ns is not None:
            ran.append(Ran(n, began_ns, now_ns, share_ns))
        if load.running == 0:
            assert load.given_ns + load.lost_ns == load.busy_ns
            assert load.carry == 0
    return load, slots, ran


def by_brute_force(ran: list[Ran]) -> tuple[int, list[Fraction]]:
    """For how long anything ran, and each exact share, one nanosecond after the other."""
    shares, busy_ns = [Fraction(0)] * len(ran), 0
    for moment in range(max((r.end_ns for r in ran), default=0)):
        running = [n for n, r in enumerate(ran) if r.start_ns <= moment < r.end_ns]
        busy_ns += bool(running)
        for n in running:
            shares[n] += Fraction(1, len(running))
    return busy_ns, shares


@given(histories())
def test_shares_are_those_of_a_sweep_over_every_nanosecond(events: list[Event]) -> None:
    load, slots, ran = played(events)
    busy_ns, exact = by_brute_force(ran)
    assert load.busy_ns == busy_ns
    for r, share in zip(ran, exact, strict=True):
        if r.share_ns is not None:
            assert abs(r.share_ns - share) < 1
            assert 0 <= r.share_ns <= r.end_ns - r.start_ns
    told = [r for r in ran if r.share_ns is not None]
    assert load.given_ns == sum(r.share_ns or 0 for r in ran)
    assert load.executions == len(told) == sum(s.executions for s in slots.values())
    assert load.batch_ns == sum(r.end_ns - r.start_ns for r in told)
    assert load.given_ns == sum(s.busy_ns for s in slots.values())


@given(histories(), st.integers(0, 10**18))
def test_shares_are_those_of_the_whole_intervals_whenever_the_clock_began(
    events: list[Event], shift_ns: int
) -> None:
    """As :mod:`metering.overlap` divides them, to the rounding of one nanosecond."""
    load, _, ran = played(events, shift_ns)
    intervals = [Interval(r.start_ns, r.end_ns, ("m", n)) for n, r in enumerate(ran)]
    offline = {s.interval.key[1]: s.busy_ns for s in divide_busy_time(intervals)}
    assert load.busy_ns == union_ns(intervals)
    for n, r in enumerate(ran):
        if r.share_ns is not None:
            assert abs(r.share_ns - offline[n]) <= 1


@given(histories(), st.lists(st.integers(0, 400), max_size=20))
def test_looking_at_the_clock_in_between_changes_nothing(
    events: list[Event], looks: list[int]
) -> None:
    load, slots = Load(0, 0), dict[int, Slot]()
    for at_ns, n, kind in events:
        for look in sorted(x for x in looks if x <= at_ns):
            load = occupancy.advance(load, look)
        slot = slots.get(n, Slot(opened_ns=0))
        if kind == "begin":
            load, slots[n] = occupancy.begin(load, slot, at_ns)
        elif kind == "end":
            load, slots[n], _ = occupancy.end(load, slot, at_ns)
        else:
            load, slots[n] = occupancy.abandon(load, slot, at_ns)
    assert (load, slots) == played(events)[:2]


def test_time_that_runs_backwards_stands_still() -> None:
    load, slot = occupancy.begin(Load(0, 100), Slot(opened_ns=0), 40)
    assert slot.began_ns == 100
    load, slot, share_ns = occupancy.end(occupancy.advance(load, 70), slot, 90)
    assert (share_ns, load.at_ns, load.busy_ns) == (0, 100, 0)


def test_a_device_that_is_never_idle_stays_exact_and_small() -> None:
    """Sixty-four instances by turns for 292 years: the file's fields hold what they count to."""
    load, slots = Load(0, 0), [Slot(opened_ns=0)] * SLOTS
    given_ns, step_ns = 0, 2**63 // (8 * SLOTS)
    for turn in range(6 * SLOTS):
        n = turn % SLOTS
        if slots[n].began_ns is not None:
            load, slots[n], share_ns = occupancy.end(load, slots[n], load.at_ns + step_ns)
            given_ns += share_ns
        load, slots[n] = occupancy.begin(load, slots[n], load.at_ns + 7)
        assert load.integral.bit_length() <= 24 * 8
        assert load.carry < UNITS < 2**128
    for n in range(SLOTS):
        load, slots[n], share_ns = occupancy.end(load, slots[n], load.at_ns + 1)
        given_ns += share_ns
    assert given_ns == load.busy_ns == load.given_ns
    assert load.integral == 0


@pytest.mark.parametrize(
    "slot", [FREE, Slot(opened_ns=0, began_ns=3)], ids=["nobody's", "runs already"]
)
def test_no_batch_begins_where_none_can(slot: Slot) -> None:
    with pytest.raises(MeteringError, match="no batch can begin"):
        occupancy.begin(Load(0, 0), slot, 5)


def test_no_more_batches_run_than_the_arithmetic_divides_by() -> None:
    full = Load(0, 0, running=SLOTS)
    with pytest.raises(MeteringError, match="64 of 64 run"):
        occupancy.begin(full, Slot(opened_ns=0), 5)


@pytest.mark.parametrize("leave", [occupancy.end, occupancy.abandon])
def test_nothing_ends_where_nothing_runs(leave: object) -> None:
    assert callable(leave)
    with pytest.raises(MeteringError, match="none runs there"):
        leave(Load(0, 0), Slot(opened_ns=0), 5)


@given(walls=st.lists(st.integers(0, 9), max_size=9))
def test_sums_of_batches_that_were_alone_are_begins_and_ends(walls: list[int]) -> None:
    load, slot = Load(0, 5, busy_ns=3, given_ns=2, lost_ns=1), Slot(0, busy_ns=2)
    told, sums = occupancy.add_alone(load, slot, len(walls), sum(walls))
    for wall_ns in walls:
        load, slot = occupancy.begin(load, slot, load.at_ns + 1)
        load, slot, share_ns = occupancy.end(load, slot, load.at_ns + wall_ns)
        assert share_ns == wall_ns
    assert (told, sums) == (load._replace(at_ns=5), slot)


def test_a_stretch_may_stand_for_several_batches() -> None:
    load, slot = occupancy.begin(Load(0, 0), Slot(opened_ns=0), 2)
    load, slot, share_ns = occupancy.end(load, slot, 9, 3)
    assert (share_ns, load.busy_ns, load.batch_ns) == (7, 7, 7)
    assert (load.executions, slot.executions) == (3, 3)

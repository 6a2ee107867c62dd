"""Which alert is tried next, and how far a target is done: whatever fails, in any order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.detection.pending_alerts import MOST, MOST_DELAY_S, Alert, PendingAlerts
from tests.unit.test_webhook import ANOMALY


def alert(offset: int, due_s: float = 0.0, partition: int = 0) -> Alert:
    return Alert((partition, offset), ANOMALY, 0, due_s)


def pending() -> PendingAlerts:
    return PendingAlerts(lambda: 1.0)


def test_an_alert_that_is_never_taken_holds_up_none_behind_it() -> None:
    waiting, now_s, delivered = pending(), 0.0, []
    for offset in range(5):
        waiting.add(alert(offset))
    for _ in range(20):
        found = waiting.next()
        assert found is not None
        now_s = max(now_s, found.due_s)
        if found.place[1] == 1:
            waiting.failed(found, now_s, None)
        else:
            waiting.done(found)
            delivered.append(found.place[1])
    assert delivered == [0, 2, 3, 4]
    assert waiting.offsets() == {0: 1}, "what is behind it is delivered again after a restart"


def test_delays_double_up_to_a_minute_and_have_no_end() -> None:
    waiting = pending()
    waiting.add(alert(0))
    found = waiting.next()
    assert found is not None
    delays = [waiting.failed(found, 0.0, None) for _ in range(2000)]
    assert delays[:8] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
    assert set(delays[8:]) == {MOST_DELAY_S}


def test_what_the_target_asks_for_holds_for_every_alert_within_bounds() -> None:
    waiting = pending()
    waiting.add(alert(0))
    waiting.add(alert(1))
    first = waiting.next()
    assert first is not None
    waiting.failed(first, 10.0, 7.0)
    second = waiting.next()
    assert second is not None
    assert second.due_s == 17.0
    assert waiting.failed(second, 17.0, 10**9) == MOST_DELAY_S


def test_a_target_that_answers_again_gets_the_others_at_once() -> None:
    waiting = pending()
    for offset in range(3):
        waiting.add(alert(offset))
        for _ in range(9):
            waiting.failed(waiting._waiting[(0, offset)], 0.0, None)
    waiting.add(alert(3))
    new = waiting.next()
    assert new is not None
    assert new.place == (0, 3), "one that was not tried yet is tried at once"
    waiting.done(new)
    assert [a.due_s for a in waiting._waiting.values()] == [0.0] * 3


def test_memory_is_bounded() -> None:
    waiting = pending()
    for offset in range(MOST):
        assert not waiting.is_full
        waiting.add(alert(offset))
    assert waiting.is_full


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from(["add", "pass", "done", "fail", "commit"])),
        max_size=60,
    )
)
def test_what_is_committed_is_all_that_lies_before_the_first_alert_that_waits(
    steps: list[tuple[int, str]],
) -> None:
    waiting, following, open_, told = pending(), [0, 0], [set(), set()], {}
    for partition, step in steps:
        if step in ("add", "pass"):
            place = (partition, following[partition])
            following[partition] += 1
            if step == "pass":
                waiting.pass_over(place)
            else:
                waiting.add(alert(place[1], partition=partition))
                open_[partition].add(place[1])
        elif step == "commit":
            told |= waiting.offsets()
            waiting.committed(waiting.offsets())
            assert waiting.offsets() == {}
            for p in (0, 1):
                if following[p]:
                    assert told[p] == min(open_[p], default=following[p])
        elif (found := waiting.next()) is not None and step == "done":
            waiting.done(found)
            open_[found.place[0]].remove(found.place[1])
        elif found is not None:
            waiting.failed(found, 1.0, None)

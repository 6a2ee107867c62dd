"""When a dead process is started again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.stack.restarts import (
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    MOST_SHORT_LIVES,
    SHORT_LIFE_S,
    WAITING_DELAY_S,
    GiveUp,
    Restart,
    RestartPolicy,
)

lives = st.floats(0, SHORT_LIFE_S, exclude_max=True)


def test_too_many_short_lives_in_a_row_are_given_up_and_not_before() -> None:
    policy, verdicts = RestartPolicy(), []
    for _ in range(MOST_SHORT_LIVES):
        policy, verdict = policy.after_exit(0.0, wanted=False)
        verdicts.append(verdict)
    assert all(isinstance(v, Restart) for v in verdicts[:-1])
    assert verdicts[-1] == GiveUp(MOST_SHORT_LIVES)


def test_each_short_life_waits_longer_than_the_one_before() -> None:
    policy, delays = RestartPolicy(), []
    for _ in range(MOST_SHORT_LIVES - 1):
        policy, verdict = policy.after_exit(0.0, wanted=False)
        assert isinstance(verdict, Restart)
        delays.append(verdict.delay_s)
    assert delays[0] == FIRST_DELAY_S
    assert delays == sorted(set(delays))
    assert delays[-1] <= LONGEST_DELAY_S


@given(st.lists(lives, max_size=MOST_SHORT_LIVES - 1), st.floats(SHORT_LIFE_S, 1e9))
def test_a_long_life_forgets_the_short_ones(short: list[float], long: float) -> None:
    policy = RestartPolicy()
    for ready_s in short:
        policy, _ = policy.after_exit(ready_s, wanted=False)
    assert policy.after_exit(long, wanted=False) == (RestartPolicy(), Restart(FIRST_DELAY_S))


@given(st.lists(lives, min_size=1, max_size=50))
def test_kills_on_purpose_never_lead_to_giving_up(ready: list[float]) -> None:
    policy = RestartPolicy()
    for ready_s in ready:
        policy, verdict = policy.after_exit(ready_s, wanted=True)
        assert verdict == Restart(FIRST_DELAY_S)


@given(st.lists(lives, min_size=1, max_size=50), st.integers(0, MOST_SHORT_LIVES - 2))
def test_who_waits_for_another_is_tried_again_for_ever_and_its_failures_stay_counted(
    ready: list[float], failures: int
) -> None:
    policy = RestartPolicy(failures)
    for ready_s in ready:
        policy, verdict = policy.after_exit(ready_s, wanted=False, waits=True)
        assert verdict == Restart(WAITING_DELAY_S)
    assert policy == RestartPolicy(failures)

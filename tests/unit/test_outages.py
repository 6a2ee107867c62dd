"""An outage is logged when it begins and when it ends, however many wait for its end."""

from __future__ import annotations

import logging

import pytest

from metering.errors import SinkUnavailable
from sinks.outages import BLIP_S, CALM_S, COMPLAINT, QUIET_S, REMIND_EVERY_S, Outages

REFUSED = SinkUnavailable("ClickHouse table cost_request_lines", 1, "connection refused")


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outages(clock: Clock) -> Outages:
    return Outages(clock)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "sinks.outages")
    return caplog


def test_many_who_fail_many_times_are_two_lines(
    outages: Outages, clock: Clock, said: pytest.LogCaptureFixture
) -> None:
    for _ in range(50):
        for who in ("lines", "rows"):
            outages.failed(who, REFUSED)
            clock.now_s += 1
    outages.recovered("lines")
    outages.recovered("lines")
    clock.now_s = 107.0
    outages.recovered("rows")
    assert said.messages == [
        f"{REFUSED}; retrying until it succeeds",
        "ClickHouse answers again after 107.0 s; 100 failures in all",
    ]


def test_another_outage_is_logged_anew(outages: Outages, said: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        outages.failed("lines", REFUSED)
        outages.recovered("lines")
    assert len(said.messages) == 4


def test_two_things_that_are_away_are_two_outages(
    outages: Outages, said: pytest.LogCaptureFixture
) -> None:
    outages.failed("lines", REFUSED)
    outages.failed("lines", SinkUnavailable("Kafka at k:9092", 0, "no broker"))
    outages.recovered("lines")
    assert [m.partition(" ")[0] for m in said.messages] == ["ClickHouse", "Kafka"] * 2


def test_success_of_one_ends_nothing_for_another_that_still_fails(
    outages: Outages, said: pytest.LogCaptureFixture
) -> None:
    """As where one table refuses rows for good."""
    outages.failed("lines", REFUSED)
    for _ in range(50):
        outages.failed("lines", REFUSED)
        outages.recovered("rows", "ClickHouse")
    assert len(said.messages) == 1


def test_what_lasts_is_told_of_again_after_a_while_with_its_present_reason(
    outages: Outages, clock: Clock, said: pytest.LogCaptureFixture
) -> None:
    outages.failed("lines", REFUSED)
    clock.now_s = REMIND_EVERY_S
    for _ in range(5):
        outages.failed("lines", SinkUnavailable("ClickHouse table x", 1, "the disk is full"))
    assert len(said.messages) == 2
    assert "no success for 600 s" in said.messages[1]
    assert "the disk is full" in said.messages[1]


def test_complaints_of_a_client_end_with_a_success_once_they_have_ceased(
    outages: Outages, clock: Clock, said: pytest.LogCaptureFixture
) -> None:
    for _ in range(40):  # one of three brokers is away: most succeeds
        outages.away("Kafka", COMPLAINT, "Kafka does not answer: node 2")
        clock.now_s += CALM_S / 4
        outages.recovered("publisher", "Kafka")
    assert len(said.messages) == 1
    clock.now_s += CALM_S
    outages.recovered("publisher", "Kafka")
    assert len(said.messages) == 2


def test_a_client_that_complains_for_less_than_a_second_is_left_alone(
    outages: Outages, clock: Clock, said: pytest.LogCaptureFixture
) -> None:
    for _ in range(9):
        outages.away("Kafka", COMPLAINT, "Kafka does not answer: NotLeaderForPartitionError")
        clock.now_s += BLIP_S / 10
    clock.now_s += CALM_S
    outages.recovered("publisher", "Kafka")
    assert said.messages == []
    outages.away("Kafka", COMPLAINT, "Kafka does not answer: NotLeaderForPartitionError")
    outages.failed("publisher", SinkUnavailable("Kafka at k:9092", 1, "no broker"))
    assert len(said.messages) == 1, "what of ours has failed is logged at once"


def test_where_nobody_has_anything_to_send_it_is_over_once_the_client_is_quiet(
    outages: Outages, clock: Clock, said: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        outages.away("Kafka", COMPLAINT, "Kafka does not answer: connection refused")
        clock.now_s += BLIP_S / 10
    outages._look()
    assert len(said.messages) == 1
    clock.now_s += QUIET_S
    outages._look()
    assert said.messages[1:] == ["Kafka answers again after 1.9 s; 20 failures in all"]


def test_whoever_gives_up_does_not_hold_an_outage_open(
    outages: Outages, said: pytest.LogCaptureFixture
) -> None:
    outages.failed("rows of partition 1", REFUSED)
    outages.gave_up("rows of partition 1")
    outages.failed("rows of partition 2", REFUSED)
    assert len(said.messages) == 2

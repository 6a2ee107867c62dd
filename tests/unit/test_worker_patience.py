"""The worker at its start, when ClickHouse or Kafka is away."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from aiokafka.errors import KafkaConnectionError
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import MeteringError, SinkUnavailable
from streams.settings import Settings
from streams.worker import patience
from streams.worker.patience import is_kafkas, reach_kafka, until_there


@given(away=st.integers(0, 30))
def test_what_is_away_is_asked_again_until_it_is_there_ever_more_slowly(away: int) -> None:
    slept_s: list[float] = []
    left = iter([True] * away + [False])

    def reach() -> None:
        if next(left):
            raise SinkUnavailable("ClickHouse", 0, "away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", slept_s.append)
        until_there(reach)
    assert len(slept_s) == away
    assert slept_s == sorted(slept_s)
    assert all(s <= patience.RETRY_MOST_S for s in slept_s)


def test_an_error_that_waiting_does_not_mend_is_not_waited_for() -> None:
    def reach() -> None:
        raise MeteringError("database name")

    with pytest.raises(MeteringError, match="database name"):
        until_there(reach)


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port that is taken and on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_kafka_that_is_away_is_named_and_the_current_event_loop_is_left_alone() -> None:
    def ask() -> None:
        """Faust takes the current loop of its thread."""
        mine = asyncio.new_event_loop()
        asyncio.set_event_loop(mine)
        try:
            with closed_port() as port:
                address = f"127.0.0.1:{port}"
                with pytest.raises(SinkUnavailable, match=address):
                    reach_kafka(Settings(kafka=address))
            assert asyncio.get_event_loop() is mine
            assert not mine.is_closed()
        finally:
            mine.close()
        told.append(True)

    told: list[bool] = []
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(60)
    assert told == [True]


def ended_by(error: Exception) -> SystemExit:
    """As Faust's worker ends."""
    end = SystemExit(1)
    end.__context__ = error  # raised in its except clause, without a cause
    return end


def test_an_end_is_kafkas_when_an_error_of_kafka_is_at_its_root() -> None:
    assert is_kafkas(ended_by(KafkaConnectionError("away")))
    wrapped = RuntimeError("can't start")
    wrapped.__cause__ = KafkaConnectionError("away")
    assert is_kafkas(ended_by(wrapped))
    assert not is_kafkas(ended_by(RuntimeError("a bug")))
    assert not is_kafkas(SystemExit(1))

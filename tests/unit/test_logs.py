"""What the project's processes log of libraries: outages in plain words, and their real errors."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import socket

import pytest
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, ProducerFenced

from metering.errors import SinkUnavailable
from sinks.clickhouse.connection import ClickHouseTarget, connect
from sinks.outages import Outages, plain
from streams.logs import Vendors

LINES = [
    ("aiokafka", "Unable connect to node with id 1: [Errno 111] Connection refused"),
    ("aiokafka", "Unable to update metadata from [1]"),
    ("aiokafka.consumer.fetcher", f"Failed fetch messages from 1: {NodeNotReadyError('x')}"),
    ("aiokafka.consumer.group_coordinator", "Heartbeat session expired - marking coordinator dead"),
    ("aiokafka.producer.sender", f"Got error produce response: {KafkaConnectionError('closed')}"),
]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    seconds = itertools.count()
    caplog.handler.addFilter(Vendors(Outages(lambda: next(seconds) / 10)))
    return caplog


def test_complaints_of_kafkas_client_are_the_beginning_of_one_outage(
    logged: pytest.LogCaptureFixture,
) -> None:
    for _ in range(100):
        for name, line in LINES:
            logging.getLogger(name).error(line)
    assert [r.name for r in logged.records] == ["sinks.outages"]
    assert "Kafka does not answer: " in logged.text


def test_an_error_of_kafkas_client_that_is_no_outage_is_handed_on(
    logged: pytest.LogCaptureFixture,
) -> None:
    logging.getLogger("aiokafka.consumer").error("Topic x is not authorized for this client")
    assert "not authorized" in logged.text


def test_what_libraries_say_of_themselves_is_left_out(logged: pytest.LogCaptureFixture) -> None:
    for name in ("urllib3.connectionpool", "clickhouse_connect.driver._backend", "mode.timers"):
        logging.getLogger(name).warning("Retrying (Retry(total=0)) after connection broken")
    for name in ("aiokafka.consumer", "faust.worker", "mode.supervisors"):
        logging.getLogger(name).info("[^---Recovery]: Starting...")
    assert logged.text == ""
    logging.getLogger("faust.app").error("a bug")
    logging.getLogger("streams.worker.desks").info("usage, partition 2: counted to 7")
    assert len(logged.records) == 2


async def test_what_kafkas_client_leaves_behind_of_an_error_is_left_out(
    logged: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.get_running_loop()
    for error in (ProducerFenced(), KafkaConnectionError("closed"), ZeroDivisionError("a bug")):
        future = loop.create_future()
        future.set_exception(error)
        del future
        gc.collect()
    assert ["a bug" in str(r.exc_info) for r in logged.records] == [True]


def test_a_clickhouse_that_is_away_is_told_of_in_the_words_of_the_operating_system() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SinkUnavailable) as caught:
            connect(ClickHouseTarget(url))
    assert str(caught.value) == f"ClickHouse at {url} does not answer: connection refused"


def test_a_clickhouse_that_says_nothing_is_told_of_without_the_request() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(SinkUnavailable) as caught:
            connect(ClickHouseTarget(url), send_receive_timeout=1)
    assert str(caught.value) == f"ClickHouse at {url} does not answer: no answer in time"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "Unable to bootstrap from [('127.0.0.1', 9092, <AddressFamily.AF_UNSPEC: 0>)]",
            "Unable to bootstrap from [('127.0.0.1', 9092)]",
        ),
        (
            "Cannot send <class 'aiokafka.protocol.transaction.AddPartitionsToTxnRequest'> to 1",
            "Cannot send AddPartitionsToTxnRequest to 1",
        ),
        ("<Connection object at 0x7f82a01a05d0>", "<Connection>"),
    ],
)
def test_python_objects_are_left_out_of_what_is_shown(text: str, shown: str) -> None:
    assert plain(text) == shown

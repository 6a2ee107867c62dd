"""Waiting at the start for what the worker needs, so that nobody takes it for broken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiokafka.errors import KafkaError

from metering.errors import SinkUnavailable
from sinks.outages import OUTAGES
from streams.kafka_admin import kafka_admin
from streams.settings import Settings

RETRY_FIRST_S = 0.2
RETRY_MOST_S = 5.0


def until_there(reach: Callable[[], object], beat: Callable[[], object] = lambda: None) -> None:
    """Call ``reach`` until it does not raise SinkUnavailable any more, however long that takes.
    ``beat`` is called before each attempt: it shows that the process goes on."""
    delay_s = RETRY_FIRST_S
    while True:
        beat()
        try:
            reach()
        except SinkUnavailable as exc:
            OUTAGES.failed("the start", exc)
            time.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_MOST_S)
        else:
            OUTAGES.recovered("the start")
            return


def reach_kafka(settings: Settings) -> None:
    """Raises SinkUnavailable: no broker answers."""
    loop = asyncio.new_event_loop()  # asyncio.run would take away the one that Faust looks for
    try:
        loop.run_until_complete(_reach_kafka(settings))
    except KafkaError as exc:
        raise SinkUnavailable(f"Kafka at {settings.kafka}", 0, repr(exc)) from exc
    finally:
        loop.close()


def is_kafkas(end: BaseException) -> bool:
    """Whether an error of Kafka is at the root of what has ended the process."""
    at: BaseException | None = end
    while at is not None:
        if isinstance(at, KafkaError):
            return True
        at = at.__cause__ or at.__context__
    return False


async def _reach_kafka(settings: Settings) -> None:
    async with kafka_admin(settings):
        pass

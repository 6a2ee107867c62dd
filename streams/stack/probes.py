"""Is it ready? One question each, answered within about a second; no answer is a no."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator

import aiohttp

from streams.stack.recipe import Probe

_TIMEOUT = aiohttp.ClientTimeout(total=2.0)


def http_ok(url: str) -> Probe:
    async def ready() -> bool:
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                session.get(url) as answer,
            ):
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    return ready


def kafka_answers(address: str) -> Probe:
    """Ready when the broker has registered itself: it is in the metadata that it gives out."""
    from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415  not for meter doctor
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    async def ready() -> bool:
        if not await _port_open(address):
            return False
        admin = AIOKafkaAdminClient(bootstrap_servers=address, request_timeout_ms=2_000)
        with quiet_aiokafka():
            try:
                await admin.start()
                cluster = await admin.describe_cluster()
                return bool(cluster["brokers"])
            except (KafkaError, OSError, TimeoutError):
                return False
            finally:
                await admin.close()

    return ready


@contextlib.contextmanager
def quiet_aiokafka() -> Iterator[None]:
    """A server that does not answer yet is expected here: not a line each time it is asked."""
    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


async def _port_open(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), 1.0)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True

"""Is it ready? One question each, answered within about a second; no answer is a no."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator

import aiohttp

from streams.stack.recipe import Probe, Watch

_TIMEOUT = aiohttp.ClientTimeout(total=2.0)
ASK_EVERY_S = 5.0
SICK_S = 4.0
"""A process that was frozen says for a moment that its loop has not run; one that hangs goes on."""
SILENT_S = 90.0
"""A machine may be so busy that a process does not answer for long."""


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


def health_watch(
    url: str,
    ask_every_s: float = ASK_EVERY_S,
    sick_s: float = SICK_S,
    silent_s: float = SILENT_S,
) -> Watch:
    """The reason why a process must be restarted: it has answered for ``sick_s`` that it is not
    well, or not at all for ``silent_s``."""
    asked_at = answered_at = time.monotonic()
    sick_since: float | None = None

    async def look(_: int) -> str | None:
        nonlocal asked_at, answered_at, sick_since
        if time.monotonic() < asked_at + ask_every_s:
            return None
        asked_at = time.monotonic()
        status, text = await _asked(url)
        now = time.monotonic()
        if status is None:
            silent = now - answered_at
            return f"{url} has not answered for {silent:.0f} s" if silent > silent_s else None
        answered_at = now
        if status == 200:
            sick_since = None
            return None
        sick_since = now if sick_since is None else sick_since
        return text if now - sick_since > sick_s else None

    return look


async def _asked(url: str) -> tuple[int | None, str]:
    """Status and text; no status where nobody answers."""
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.get(url) as answer,
        ):
            return answer.status, (await answer.text()).strip()
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None, ""


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

"""Waits until what was answered has come all the way to ClickHouse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sinks.clickhouse.queries import ClickHouseReader

POLL_S = 0.25


async def stored_all(
    reader: ClickHouseReader,
    prefix: str,
    answered: int,
    timeout_s: float,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """How many lines of the run are stored, once they are ``answered`` or time is up."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        stored = (await asyncio.to_thread(reader.stored, prefix)).requests
        if on_progress is not None:
            on_progress(stored)
        if stored >= answered or loop.time() > deadline:
            return stored
        await asyncio.sleep(POLL_S)


async def windows_closed(reader: ClickHouseReader, since_ms: int, timeout_s: float) -> bool:
    """Until every stored request is in a final window; ``False``: time is up."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while await asyncio.to_thread(reader.requests_in_open_windows, since_ms) > 0:
        if loop.time() > deadline:
            return False
        await asyncio.sleep(POLL_S)
    return True

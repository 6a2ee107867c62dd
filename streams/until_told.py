"""How the project's own processes run and end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any

from streams.publisher import Publisher

PART_S = 2.0
"""How long a producer gets to part from a broker, which may be frozen."""


async def until_told(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` until it ends by itself, or is cancelled by SIGTERM or SIGINT."""
    task = asyncio.create_task(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def part(publisher: Publisher) -> None:
    """Stop it, within ``PART_S``."""
    parting = asyncio.create_task(publisher.stop())
    await asyncio.wait({parting}, timeout=PART_S)
    parting.cancel()

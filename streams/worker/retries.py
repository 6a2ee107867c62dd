"""Writes that are tried until they are taken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from metering.errors import SinkUnavailable
from sinks.prometheus import WorkerMetrics

log = logging.getLogger(__name__)

RETRY_FIRST_S = 0.2
RETRY_MOST_S = 5.0


async def until_written(
    write: Callable[[], Awaitable[None]],
    metrics: WorkerMetrics,
    is_wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Raises SinkUnavailable: it was not taken, and is not wanted any more."""
    delay_s = RETRY_FIRST_S
    while True:
        try:
            await write()
        except SinkUnavailable as exc:
            metrics.write_failures.inc()
            log.warning("%s; trying again in %.1f s", exc, delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_MOST_S)
            if not is_wanted():
                raise
        else:
            return

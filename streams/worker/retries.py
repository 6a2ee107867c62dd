"""Writes that are tried until they are taken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from metering.errors import SinkUnavailable
from sinks.outages import OUTAGES
from sinks.prometheus import WorkerMetrics

RETRY_FIRST_S = 0.2
RETRY_MOST_S = 5.0


async def until_written(
    write: Callable[[], Awaitable[None]],
    metrics: WorkerMetrics,
    who: str,
    is_wanted: Callable[[], bool] = lambda: True,
) -> None:
    """``who`` writes is logged with an outage, once for all who are the same.

    Raises:
        SinkUnavailable: it was not taken, and is not wanted any more.
    """
    delay_s = RETRY_FIRST_S
    while True:
        try:
            await write()
        except SinkUnavailable as exc:
            metrics.write_failures.inc()
            OUTAGES.failed(who, exc)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_MOST_S)
            if not is_wanted():
                OUTAGES.gave_up(who)
                raise
        else:
            OUTAGES.recovered(who)
            return

"""``python -m streams.sentinel``: the heartbeats of this host, until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

from prometheus_client import CollectorRegistry

from sinks.prometheus import SentinelMetrics, serve
from streams.publisher import Publisher
from streams.sentinel.app import Sentinel
from streams.sentinel.triton import TritonCounters
from streams.settings import Settings

PART_S = 2.0
"""How long the producer gets to part from a broker, which may be frozen."""


async def run(settings: Settings) -> None:
    registry = CollectorRegistry()
    publisher = Publisher(settings)
    async with TritonCounters(settings) as triton:
        sentinel = Sentinel(settings, publisher, triton, SentinelMetrics(registry))
        serve(registry, settings.metrics_host, settings.metrics_port)
        task = asyncio.create_task(sentinel.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        finally:
            parting = asyncio.create_task(publisher.stop())
            await asyncio.wait({parting}, timeout=PART_S)
            parting.cancel()


def main() -> None:
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(run(Settings.from_env()))


if __name__ == "__main__":
    main()

"""``python -m streams.sentinel``: the heartbeats of this host, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging

from prometheus_client import CollectorRegistry

from sinks.health import Liveness, serve
from sinks.prometheus import SentinelMetrics
from streams.publisher import Publisher
from streams.sentinel.app import Sentinel
from streams.sentinel.triton import TritonCounters
from streams.settings import Settings
from streams.until_told import part, until_told


async def run(settings: Settings) -> None:
    registry = CollectorRegistry()
    publisher = Publisher(settings)
    async with TritonCounters(settings) as triton:
        sentinel = Sentinel(settings, publisher, triton, SentinelMetrics(registry))
        serve(registry, settings.metrics_host, settings.metrics_port, Liveness())
        try:
            await until_told(sentinel.run())
        finally:
            await part(publisher)


def main() -> None:
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(run(Settings.from_env()))


if __name__ == "__main__":
    main()

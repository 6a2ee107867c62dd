"""``python -m streams.sentinel``: the heartbeats of this host, until SIGTERM."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from sinks.health import Liveness, serve
from sinks.prometheus import SentinelMetrics
from streams.logs import set_up_logging
from streams.publisher import Publisher
from streams.sentinel.app import Sentinel
from streams.sentinel.triton import TritonCounters
from streams.service import ended_by_a_sentence, service_settings
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
    set_up_logging()
    with ended_by_a_sentence("sentinel"):
        asyncio.run(run(service_settings()))


if __name__ == "__main__":
    main()

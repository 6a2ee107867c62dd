"""``python -m streams.shipper``: ships the usage log of this host, until SIGTERM.

Told to stop, it ships what is there, within ``DRAIN_S``; what is not shipped by then waits.
"""

from __future__ import annotations

import asyncio
import signal

from prometheus_client import CollectorRegistry

from sinks.health import Liveness, serve
from sinks.prometheus import ShipperMetrics
from streams.logs import set_up_logging
from streams.publisher import Publisher
from streams.service import ended_by_a_sentence, service_settings
from streams.settings import Settings
from streams.shipper.ship import Shipper
from streams.until_told import part


async def run(settings: Settings) -> None:
    registry = CollectorRegistry()
    publisher = Publisher(settings)
    metrics = ShipperMetrics(registry)
    shipper = Shipper(settings.log_dir, publisher, metrics, settings.log_max_bytes)
    shipper.lock()
    serve(registry, settings.metrics_host, settings.metrics_port, Liveness())
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await shipper.run(stop)
    finally:
        await part(publisher)


def main() -> None:
    set_up_logging()
    with ended_by_a_sentence("shipper"):
        asyncio.run(run(service_settings()))


if __name__ == "__main__":
    main()

"""``python -m streams.shipper``: ships the usage log of this host, until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

from prometheus_client import CollectorRegistry

from sinks.prometheus import ShipperMetrics, serve
from streams.publisher import Publisher
from streams.settings import Settings
from streams.shipper.ship import Shipper


async def run(settings: Settings) -> None:
    registry = CollectorRegistry()
    publisher = Publisher(settings)
    shipper = Shipper(settings.log_dir, publisher, ShipperMetrics(registry))
    shipper.lock()
    serve(registry, settings.metrics_host, settings.metrics_port)
    task = asyncio.create_task(shipper.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    finally:
        await publisher.stop()


def main() -> None:
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(run(Settings.from_env()))


if __name__ == "__main__":
    main()

"""``python -m streams.detection``: the detector, until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

from prometheus_client import CollectorRegistry

from detectors.spend import SpendDetector
from sinks.clickhouse.writer import ClickHouseWriter
from sinks.prometheus import DetectorMetrics, serve
from sinks.webhook import WebhookSink
from streams.detection.app import Detection, Outlets
from streams.publisher import Publisher
from streams.settings import Settings
from streams.worker.app import clickhouse_target


async def run(settings: Settings) -> None:
    registry = CollectorRegistry()
    outlets = Outlets(
        ClickHouseWriter(clickhouse_target(settings)),
        Publisher(settings),
        [WebhookSink(url) for url in settings.webhooks],
        DetectorMetrics(registry),
    )
    detection = Detection(settings, SpendDetector(), outlets)
    serve(registry, settings.metrics_host, settings.metrics_port)
    task = asyncio.create_task(detection.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    finally:
        await outlets.publisher.stop()
        outlets.writer.close()


def main() -> None:
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(run(Settings.from_env()))


if __name__ == "__main__":
    main()

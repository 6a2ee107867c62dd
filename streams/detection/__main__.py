"""``python -m streams.detection``: the detector, until SIGTERM."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from detectors.options import DetectorOptions
from detectors.spend import SpendDetector
from sinks.alertmanager import AlertmanagerSink
from sinks.clickhouse.writer import ClickHouseWriter
from sinks.health import Liveness, serve
from sinks.prometheus import DetectorMetrics
from sinks.webhook import WebhookSink
from streams.detection.app import Detection, Outlets
from streams.logs import set_up_logging
from streams.odd_records import read_odd_records
from streams.publisher import Publisher
from streams.settings import Settings
from streams.targets import clickhouse_target
from streams.until_told import until_told


def alert_sinks(settings: Settings) -> list[WebhookSink | AlertmanagerSink]:
    """Every webhook, signed where there is a secret, and Alertmanager where one is named."""
    secret = settings.webhook_secret.get_secret_value()
    sinks: list[WebhookSink | AlertmanagerSink] = [
        WebhookSink(url, secret=secret.encode() if secret else None) for url in settings.webhooks
    ]
    if settings.alertmanager:
        sinks.append(AlertmanagerSink(settings.alertmanager))
    return sinks


async def run(settings: Settings) -> None:
    registry = CollectorRegistry()
    alerts = alert_sinks(settings)
    outlets = Outlets(
        ClickHouseWriter(clickhouse_target(settings)),
        Publisher(settings),
        alerts,
        DetectorMetrics(registry),
    )
    options = DetectorOptions(floor_usd_per_hour=settings.alert_floor_usd_per_hour)
    detection = Detection(settings, SpendDetector(options), outlets)
    serve(registry, settings.metrics_host, settings.metrics_port, Liveness())
    try:
        await until_told(detection.run())
    finally:
        await outlets.publisher.stop()
        outlets.writer.close()
        for sink in alerts:
            await sink.close()


def main() -> None:
    set_up_logging()
    read_odd_records()
    asyncio.run(run(Settings.from_env()))


if __name__ == "__main__":
    main()

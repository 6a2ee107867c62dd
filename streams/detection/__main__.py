"""``python -m streams.detection``: the detector and the delivery of its alerts, until SIGTERM."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from detectors.options import DetectorOptions
from detectors.spend import SpendDetector
from sinks.alertmanager import AlertmanagerSink
from sinks.clickhouse.writer import ClickHouseWriter
from sinks.health import Liveness, serve
from sinks.http_post import ONE_TRY
from sinks.prometheus import DetectorMetrics
from sinks.webhook import WebhookSink
from streams.detection.alerts import Delivery, Target, group_of
from streams.detection.app import Detection, Outlets
from streams.logs import set_up_logging
from streams.odd_records import read_odd_records
from streams.publisher import Publisher
from streams.service import ended_by_a_sentence, service_settings
from streams.settings import Settings
from streams.targets import clickhouse_target
from streams.until_told import until_told

Sink = WebhookSink | AlertmanagerSink


def alert_sinks(settings: Settings) -> dict[str, tuple[str, Sink]]:
    """By name, the address and its sink: every webhook, signed where there is a secret, and
    Alertmanager where one is named. Whoever calls tries again.

    Raises:
        MeteringError: an address or the secret can't be used; neither is shown.
    """
    secret = settings.webhook_secret.get_secret_value()
    key = secret.encode() if secret else None
    sinks: dict[str, tuple[str, Sink]] = {
        f"webhook-{n}": (url, WebhookSink(url, secret=key, policy=ONE_TRY))
        for n, url in enumerate(dict.fromkeys(settings.webhooks), 1)
    }
    if settings.alertmanager:
        sink = AlertmanagerSink(settings.alertmanager, policy=ONE_TRY)
        sinks["alertmanager"] = (settings.alertmanager, sink)
    return sinks


async def run(settings: Settings) -> None:
    registry = CollectorRegistry()
    metrics = DetectorMetrics(registry)
    sinks = alert_sinks(settings)
    deliveries = [
        Delivery(settings, Target(name, group_of(address), sink), metrics)
        for name, (address, sink) in sinks.items()
    ]
    outlets = Outlets(ClickHouseWriter(clickhouse_target(settings)), Publisher(settings), metrics)
    options = DetectorOptions(floor_usd_per_hour=settings.alert_floor_usd_per_hour)
    detection = Detection(settings, SpendDetector(options), outlets)
    serve(registry, settings.metrics_host, settings.metrics_port, Liveness())
    try:
        await until_told(run_beside(detection, deliveries))
    finally:
        await outlets.publisher.stop()
        outlets.writer.close()
        for _, sink in sinks.values():
            await sink.close()


async def run_beside(detection: Detection, deliveries: list[Delivery]) -> None:
    """Nothing is judged before each target has a place in the topic of anomalies: what a new target
    is to be told of begins there."""
    async with asyncio.TaskGroup() as tasks:
        for delivery in deliveries:
            tasks.create_task(delivery.run())
        for delivery in deliveries:
            await delivery.positioned.wait()
        tasks.create_task(detection.run())


def main() -> None:
    set_up_logging()
    read_odd_records()
    with ended_by_a_sentence("detector"):
        asyncio.run(run(service_settings()))


if __name__ == "__main__":
    main()

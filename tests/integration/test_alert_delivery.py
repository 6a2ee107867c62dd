"""Alerts over a real Kafka, to receivers that are away while the detector dies and starts again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from sinks.alertmanager import AlertmanagerSink
from sinks.http_post import ONE_TRY
from sinks.prometheus import DetectorMetrics
from sinks.webhook import WebhookSink
from streams.detection.alerts import Delivery, Target
from streams.publisher import Publisher, anomaly_record
from streams.settings import Settings
from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from streams.stack.topics_admin import ensure_topics
from streams.topics import COST_ANOMALIES
from tests.integration.topics import replace
from tests.unit.test_webhook import ANOMALY, Receiver, receiving
from tests.waiting import until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]


@pytest.fixture
async def settings(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Settings]:
    folder = tmp_path_factory.mktemp("alerts")
    async with Stack(StackConfig(folder, preferred_ports=False), only=("kafka",)) as stack:
        await ensure_topics(stack.settings, alter=True)
        yield stack.settings


async def publish(settings: Settings, *numbers: int) -> None:
    publisher = Publisher(settings)
    anomalies = [ANOMALY.model_copy(update={"anomaly_id": f"a{n}"}) for n in numbers]
    try:
        await publisher.publish([anomaly_record(a) for a in anomalies])
    finally:
        await publisher.stop()


@asynccontextmanager
async def delivering(
    settings: Settings, dead: Receiver, alive: Receiver
) -> AsyncIterator[CollectorRegistry]:
    """A life of the deliveries; it ends in the midst, as by a kill."""
    registry = CollectorRegistry()
    metrics = DetectorMetrics(registry)
    sinks: list[WebhookSink | AlertmanagerSink] = [
        WebhookSink(dead.url, policy=ONE_TRY),
        AlertmanagerSink(alive.url, policy=ONE_TRY),
    ]
    deliveries = [
        Delivery(settings, Target(f"t{n}", f"g{n}", sink), metrics) for n, sink in enumerate(sinks)
    ]
    tasks = [asyncio.create_task(d.run()) for d in deliveries]
    try:
        for delivery in deliveries:
            await asyncio.wait_for(delivery.positioned.wait(), 60)
        yield registry
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sink in sinks:
            await sink.close()


def keys(receiver: Receiver) -> list[str]:
    return [headers["idempotency-key"] for headers in receiver.headers]


async def test_an_outage_of_a_webhook_loses_no_alert_though_the_detector_starts_again(
    settings: Settings,
) -> None:
    await publish(settings, 0)
    async with receiving(Receiver(statuses=[503] * 10_000)) as dead, receiving(Receiver()) as alive:
        async with delivering(settings, dead, alive):
            await publish(settings, 1, 2)
            await until(lambda: set(keys(dead)) == {"a1", "a2"} and len(alive.bodies) == 2)
        await publish(settings, 3)
        async with delivering(settings, dead, alive) as registry:
            await publish(settings, 4)
            await until(lambda: set(keys(dead)) >= {"a3", "a4"} and len(alive.bodies) == 4)
            tried = len(dead.bodies)
            dead.statuses.clear()
            await until(lambda: set(keys(dead)[tried:]) == {"a1", "a2", "a3", "a4"})
            pending = "meter_alerts_pending"
            await until(lambda: registry.get_sample_value(pending, {"target": "t0"}) == 0)
        tried = len(dead.bodies)
        async with delivering(settings, dead, alive):
            await publish(settings, 5)
            await until(lambda: len(dead.bodies) > tried and len(alive.bodies) == 5)
        assert keys(dead)[tried:] == ["a5"], "what was delivered is not delivered again"


async def test_alerts_of_a_topic_that_was_created_again_are_delivered(settings: Settings) -> None:
    async with receiving(Receiver()) as first, receiving(Receiver()) as second:
        async with delivering(settings, first, second):
            await publish(settings, *range(5))
            await until(lambda: len(first.bodies) == len(second.bodies) == 5)
            await replace(settings, COST_ANOMALIES)
            await publish(settings, 10, 11)
            await until(lambda: set(keys(first)[5:]) == {"a10", "a11"})
            await until(lambda: len(second.bodies) >= 7)
        delivered = len(first.bodies)
        await publish(settings, 12)
        async with delivering(settings, first, second):
            await until(lambda: "a12" in keys(first)[delivered:])

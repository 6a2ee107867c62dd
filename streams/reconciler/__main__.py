"""``python -m streams.reconciler``: stored usage against Triton's counters, until SIGTERM."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from sinks.clickhouse.capacity import CapacityWriter
from sinks.health import Liveness, serve
from sinks.prometheus import ReconcilerMetrics
from streams.logs import set_up_logging
from streams.odd_records import read_odd_records
from streams.publisher import Publisher
from streams.reconciler.app import Reconciler
from streams.reconciler.judging import Judging
from streams.service import ended_by_a_sentence, service_settings
from streams.settings import Settings
from streams.targets import clickhouse_target
from streams.until_told import until_told


async def run(settings: Settings) -> None:
    registry = CollectorRegistry()
    publisher = Publisher(settings)
    target = clickhouse_target(settings)
    target.endpoint()
    writer, judging = CapacityWriter(target), Judging(target)
    reconciler = Reconciler(settings, writer, publisher, judging, ReconcilerMetrics(registry))
    serve(registry, settings.metrics_host, settings.metrics_port, Liveness())
    try:
        await until_told(reconciler.run())
    finally:
        await publisher.stop()
        writer.close()
        judging.close()


def main() -> None:
    set_up_logging()
    read_odd_records()
    with ended_by_a_sentence("reconciler"):
        asyncio.run(run(service_settings()))


if __name__ == "__main__":
    main()

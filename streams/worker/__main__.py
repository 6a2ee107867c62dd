"""``python -m streams.worker``: the stream processor, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from functools import partial

import faust
import uvloop
from prometheus_client import CollectorRegistry

from metering.compiled import IS_COMPILED
from sinks.clickhouse.schema import migrate
from sinks.health import Liveness, serve
from streams.closed_connections import tell_closed_connections
from streams.logs import set_up_logging
from streams.odd_records import read_odd_records
from streams.service import ended_by_a_sentence, service_settings
from streams.targets import clickhouse_target
from streams.worker.app import make_app
from streams.worker.garbage import settle
from streams.worker.memory import keep_memory
from streams.worker.patience import is_kafkas, reach_kafka, until_there

log = logging.getLogger(__name__)

SWITCH_S = 0.001
"""The loop waits that long for a thread that writes to ClickHouse or reads from Kafka, if it is at
work just when an answer comes. A transaction has six answers; Python's own 5 ms is long then."""


def main() -> None:
    """Waits for ClickHouse and Kafka. Ends with ``EX_TEMPFAIL`` where Kafka goes away under Faust,
    which can't begin again in one process."""
    set_up_logging()
    if not IS_COMPILED:
        log.warning("usage is read without the compiled reader, at half the speed: see the README")
    # Of a loop of asyncio's own a worker that reads from a full topic takes a tenth longer.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    tell_closed_connections()
    keep_memory()
    read_odd_records()
    with ended_by_a_sentence("worker"):
        settings = service_settings()
        registry = CollectorRegistry()
        app = make_app(settings, registry)
        liveness = Liveness()
        serve(registry, settings.metrics_host, settings.metrics_port, liveness)
        until_there(partial(migrate, clickhouse_target(settings)), liveness.beat)
        until_there(partial(reach_kafka, settings), liveness.beat)
    settle()
    sys.setswitchinterval(SWITCH_S)
    worker = faust.Worker(app, loglevel="INFO", override_logging=False, redirect_stdouts=False)
    worker.spinner = None  # it writes to the log, which is no terminal
    liveness.follow(worker.loop)
    try:
        worker.execute_from_commandline()
    except SystemExit as end:
        if end.code and is_kafkas(end):
            raise SystemExit(os.EX_TEMPFAIL) from end
        raise


if __name__ == "__main__":
    main()

"""Takes a heartbeat at its time, whatever Kafka and Triton do; sends them in order.

Heartbeats wait in memory while Kafka is away, ``KEPT`` at most, and go out when it is back; the
oldest are given up. A crash loses what waits: the counters in the next one hold it all the same,
less finely in time. One whose acknowledgement was lost is sent again, under the same identity.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Protocol

from metering.capacity import CapacityHeartbeat
from metering.errors import SinkUnavailable
from sinks.outages import OUTAGES
from sinks.prometheus import SentinelMetrics
from streams.publisher import Record, heartbeat_record
from streams.sentinel.beat import take
from streams.sentinel.triton import TritonCounters
from streams.settings import Settings

log = logging.getLogger(__name__)

KEPT = 720
"""An hour of heartbeats, at the usual interval."""
AT_A_TIME = 50
RETRY_FIRST_S = 0.2
RETRY_MOST_S = 5.0
NS = 10**9


class Sink(Protocol):
    async def publish(self, records: list[Record]) -> None:
        """Returns when all are acknowledged, or raises SinkUnavailable."""


class Sentinel:
    """One per host, beside the shipper."""

    def __init__(
        self, settings: Settings, publisher: Sink, triton: TritonCounters, metrics: SentinelMetrics
    ) -> None:
        self._settings = settings
        self._publisher = publisher
        self._triton = triton
        self._metrics = metrics
        self._waiting: deque[CapacityHeartbeat] = deque()
        self._wake = asyncio.Event()
        self._silence = ""

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat())
            tasks.create_task(self._send())

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        at_s = loop.time()
        while True:
            try:
                await self.beat_once()
            except Exception:  # whatever a board or an answer holds, the next one may be sound
                log.exception("no heartbeat this time")
            at_s = max(at_s + self._settings.capacity_interval_s, loop.time())
            await asyncio.sleep(at_s - loop.time())

    async def beat_once(self) -> CapacityHeartbeat:
        beat, silence = await take(self._settings.log_dir, self._triton.ask)
        if silence:
            self._metrics.uncounted.inc()
        if silence != self._silence:
            self._silence = silence
            log.warning("no counters are claimed: %s", silence) if silence else log.info(
                "counters of %s on %s", beat.boot_id, beat.host
            )
        _tell(self._metrics, beat)
        self._waiting.append(beat)
        if len(self._waiting) > KEPT:
            self._waiting.popleft()
            self._metrics.dropped.inc()
        self._wake.set()
        return beat

    async def _send(self) -> None:
        delay_s = RETRY_FIRST_S
        while True:
            await self._wake.wait()
            beats = list(self._waiting)[:AT_A_TIME]
            try:
                await self._publisher.publish([heartbeat_record(beat) for beat in beats])
            except SinkUnavailable as exc:
                self._metrics.failed.inc()
                OUTAGES.failed(self, exc)  # heartbeats wait
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MOST_S)
                continue
            OUTAGES.recovered(self)
            delay_s = RETRY_FIRST_S
            self._metrics.sent.inc(len(beats))
            sent = {beat.sequence for beat in beats}
            while self._waiting and self._waiting[0].sequence in sent:
                self._waiting.popleft()
            if not self._waiting:
                self._wake.clear()


def _tell(metrics: SentinelMetrics, beat: CapacityHeartbeat) -> None:
    for gauge in (
        metrics.busy_seconds, metrics.idle_seconds, metrics.lost_seconds, metrics.executions,
    ):  # fmt: skip
        gauge.clear()  # A device or an instance that is gone is told of no more.
    for device in beat.devices:
        labels = (device.device, device.accelerator)
        metrics.busy_seconds.labels(*labels).set(device.busy_ns / NS)
        metrics.idle_seconds.labels(*labels).set(device.idle_ns / NS)
        metrics.lost_seconds.labels(*labels).set(device.lost_ns / NS)
    for instance in beat.instances:
        name = instance.source.rpartition("/")[2]
        metrics.executions.labels(instance.model, name, instance.device).set(instance.executions)

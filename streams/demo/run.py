"""Runs the demo: the stack, the traffic, the incident, and then the questions."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sinks.clickhouse.queries import ClickHouseReader
from streams.audit import audit
from streams.demo.pricechange import announce
from streams.demo.receiver import WebhookReceiver
from streams.demo.report import DemoReport, Found, spend_by_window
from streams.reconcile import reconcile
from streams.replay.load import drive
from streams.replay.load_result import LoadResult, Progress
from streams.replay.scenario import SCENARIOS, Incident, Scenario, demo_plan
from streams.settings import Settings
from streams.settle import stored_all, windows_closed
from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from streams.targets import clickhouse_target

NS = 10**9
ANNOUNCE_BEFORE_S = 5.0
SETTLE_TIMEOUT_S = 60.0
DETECTION_SETTLE_S = 3.0
MAX_IN_FLIGHT = 512
REQUEST_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """``kill`` names a process that gets a SIGKILL in the middle of the traffic."""

    folder: Path
    incident: Incident = "long-prompts"
    calm_s: float = 65.0
    incident_s: float = 35.0
    seed: int = 1
    kill: str | None = None
    kafka: str | None = None
    clickhouse: str | None = None
    triton: str | None = None


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told how it goes: lines of text, and counts of requests."""

    say: Callable[[str], None]
    traffic: Callable[[Progress, int], None]


async def run_demo(options: DemoOptions, watcher: Watcher) -> DemoReport:
    """The report; whether it is a good one, its ``problems`` say.

    Raises:
        StackError: the stack did not come up.
        SinkUnavailable: ClickHouse did not answer when it was asked.
    """
    began = time.monotonic()
    async with (
        WebhookReceiver() as receiver,
        Stack(stack_of(options, receiver.url), watcher.say) as stack,
    ):
        return await _Demo(options, watcher, stack, receiver).run(began)


def stack_of(options: DemoOptions, webhook: str) -> StackConfig:
    """The same demo whatever ``METER_*`` say; and a price change must not be written into a price
    book that somebody else goes by."""
    return StackConfig(
        folder=options.folder,
        kafka=options.kafka,
        clickhouse=options.clickhouse,
        triton=options.triton,
        price_book=options.folder / "prices.toml",
        webhooks=(webhook,),
        alert_floor_usd_per_hour=Settings().alert_floor_usd_per_hour,
        models_see_environment=False,
    )


class _Demo:
    def __init__(
        self, options: DemoOptions, watcher: Watcher, stack: Stack, receiver: WebhookReceiver
    ) -> None:
        self._options = options
        self._watcher = watcher
        self._stack = stack
        self._receiver = receiver
        self._scenario: Scenario = SCENARIOS[options.incident]
        self._prefix = f"demo-{uuid.uuid4().hex[:8]}-"
        self._reader = ClickHouseReader(clickhouse_target(stack.settings))

    async def run(self, began: float) -> DemoReport:
        try:
            start_ns = time.time_ns()
            load = await self._traffic(start_ns)
            return await self._report(load, start_ns, began)
        finally:
            self._reader.close()

    async def _traffic(self, start_ns: int) -> LoadResult:
        options = self._options
        plan = [
            replace(
                request,
                request_id=self._prefix + request.request_id,
                retry_of=None if request.retry_of is None else self._prefix + request.retry_of,
            )
            for request in demo_plan(
                options.calm_s, options.incident_s, options.incident, options.seed
            )
        ]
        self._watcher.say(
            f"{options.calm_s:g} s of calm traffic, then the incident: {self._scenario.summary}"
        )
        asides = [asyncio.create_task(self._change_price(start_ns))]
        if options.kill is not None:
            asides.append(asyncio.create_task(self._kill(options.kill)))
        try:
            load = await drive(
                plan,
                self._stack.settings.triton_grpc,
                max_in_flight=MAX_IN_FLIGHT,
                timeout_s=REQUEST_TIMEOUT_S,
                on_progress=lambda progress: self._watcher.traffic(progress, len(plan)),
            )
            await asyncio.gather(*asides)
        finally:
            for aside in asides:
                aside.cancel()
        return load

    async def _change_price(self, start_ns: int) -> None:
        change = self._scenario.price_change
        if change is None:
            return
        await asyncio.sleep(max(0.0, self._options.calm_s - ANNOUNCE_BEFORE_S))
        accelerator, region = (
            await asyncio.to_thread(
                self._reader.rows,
                "SELECT DISTINCT accelerator, region FROM cost_requests "
                "WHERE model = {model:String} LIMIT 1",
                {"model": change.model},
            )
        )[0]
        price = announce(
            self._stack.settings.price_book,
            accelerator,
            region,
            change.factor,
            self._incident_ns(start_ns),
        )
        self._watcher.say(
            f"the price book now has {price.accelerator} in {price.region} at "
            f"{price.usd_per_gpu_hour:f} USD/h from {price.effective_from:%H:%M:%S} UTC"
        )

    async def _kill(self, name: str) -> None:
        await asyncio.sleep((self._options.calm_s + self._options.incident_s) / 2)
        pid = self._stack.kill(name)
        self._watcher.say(f"kill -9 {pid} ({name}), in the middle of the traffic")

    def _incident_ns(self, start_ns: int) -> int:
        return start_ns + int(self._options.calm_s * NS)

    async def _report(self, load: LoadResult, start_ns: int, began: float) -> DemoReport:
        watcher, settings = self._watcher, self._stack.settings
        watcher.say(f"{load.answered} requests answered; waiting for the last to be stored")
        stored = await stored_all(self._reader, self._prefix, load.answered, SETTLE_TIMEOUT_S)
        since_ms = start_ns // 10**6 - 60_000
        closed = await windows_closed(self._reader, since_ms, SETTLE_TIMEOUT_S)
        watcher.say("every window is closed" if closed else "some windows are still open")
        await asyncio.sleep(DETECTION_SETTLE_S)
        watcher.say("auditing the topics, reconciling with Triton's own counters")
        topics = await audit(settings, self._prefix)
        verdicts = await reconcile(settings)
        found = await asyncio.to_thread(self._found, start_ns)
        return DemoReport(
            scenario=self._scenario,
            killed=self._options.kill,
            restarts=self._stack.restarts,
            load=load,
            topics=topics,
            stored=stored,
            verdicts=verdicts,
            unit_costs=await asyncio.to_thread(self._reader.unit_costs, self._prefix),
            spend=await asyncio.to_thread(spend_by_window, self._reader, since_ms),
            incident_ns=self._incident_ns(start_ns),
            found=found,
            delivered=len(self._receiver.anomalies),
            folder=self._options.folder,
            seconds=time.monotonic() - began,
        )

    def _found(self, start_ns: int) -> list[Found]:
        rows = self._reader.rows(
            "SELECT toUnixTimestamp64Milli(window_start), window_seconds, tenant, model, "
            "usd_per_hour, driver, slice, share, lever, causes "
            "FROM cost_anomalies WHERE window_start >= fromUnixTimestamp64Milli({since:Int64}) "
            "ORDER BY window_start, abs(usd_per_hour) DESC",
            {"since": start_ns // 10**6 - 60_000},
        )
        incident_ms = self._incident_ns(start_ns) // 10**6
        return [
            Found.from_row(row, in_incident=row[0] + row[1] * 1000 > incident_ms) for row in rows
        ]

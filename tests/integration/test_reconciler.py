"""Heartbeats and verdicts of a real stack: whole, with a batch taken away, and over restarts."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import aiohttp
import numpy as np
import pytest
from tritonclient.grpc import aio as grpc
from tritonclient.utils import InferenceServerException

from metering.capacity import CapacityHeartbeat
from metering.occupancy_board import Board
from metering.reconciliation import Verdict
from sinks.clickhouse.capacity import CapacityReader
from streams.reconcile import by_model, reconcile
from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from streams.targets import clickhouse_target
from streams.topics import USAGE_CAPACITY, USAGE_RECONCILIATION
from tests.integration.topics import read_topic

pytestmark = pytest.mark.stack

CONFIG = """
name: "wishes"
backend: "python"
max_batch_size: 4
input [ { name: "WISH" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "GRANTED" data_type: TYPE_STRING dims: [ 1 ] } ]
dynamic_batching {
  max_queue_delay_microseconds: 20000
  default_queue_policy {
    timeout_action: REJECT default_timeout_microseconds: 1000000 max_queue_size: 6
  }
}
instance_group [ { count: 1 kind: KIND_CPU } ]
"""
MODEL = """
import time

from triton_models.emitter import backend
from triton_models.emitter.metered import MeteredModel, Served


class TritonPythonModel(MeteredModel):
    operation = "chat"

    def load(self):
        pass

    def serve(self, requests):
        wishes = [backend.tensor(r, "WISH") for r in requests]
        time.sleep(1.5 if any(w[0, 0] == b"slow" for w in wishes) else 0.03)
        if any(w[0, 0] == b"raise" for w in wishes):
            raise ValueError("as wished")
        return [
            Served(error="as wished") if w[0, 0] == b"refuse" else Served({"GRANTED": w})
            for w in wishes
        ]
"""
_LAST = "SELECT verdict FROM reconciliations WHERE model = 'wishes' ORDER BY time DESC LIMIT 1"


class Running:
    def __init__(self, stack: Stack, said: list[str]) -> None:
        self.stack = stack
        self.said = said

    async def wish(self, *wishes: str) -> list[str]:
        """Each a request of its own, at once; what became of it."""
        client = grpc.InferenceServerClient(self.stack.settings.triton_grpc)

        async def one(wish: str) -> str:
            given = grpc.InferInput("WISH", [1, 1], "BYTES")
            given.set_data_from_numpy(np.array([[wish.encode()]], dtype=np.object_))
            try:
                await client.infer("wishes", [given], parameters={"tenant": "acme"})
            except InferenceServerException as exc:
                return exc.message()
            return "granted"

        try:
            return await asyncio.gather(*(one(wish) for wish in wishes))
        finally:
            await client.close()

    async def ask(self, sql: str) -> list[tuple[Any, ...]]:
        def rows() -> list[tuple[Any, ...]]:
            reader = CapacityReader(clickhouse_target(self.stack.settings))
            try:
                return reader.rows(sql)
            finally:
                reader.close()

        return await asyncio.to_thread(rows)

    async def kill(self, name: str) -> None:
        """kill -9; returns when the process that follows is ready."""
        self.said.clear()
        self.stack.kill(name)
        deadline = time.monotonic() + 240
        while not any(f"{name}: ready again" in line for line in self.said):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)

    async def until(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer, once there is one."""
        deadline = time.monotonic() + 240
        while not (rows := await self.ask(sql)):
            assert time.monotonic() < deadline, sql
            await asyncio.sleep(0.1)
        return rows

    async def verdict(self, wanted: Callable[[Verdict], bool]) -> Verdict:
        """The first of the newest ones that is as wanted."""
        deadline = time.monotonic() + 240
        found = None
        while time.monotonic() < deadline:
            if rows := await self.ask(_LAST):
                found = Verdict.model_validate_json(rows[0][0])
                if wanted(found):
                    return found
            await asyncio.sleep(0.1)
        pytest.fail(f"no such verdict; the newest is {found!r}")

    async def metric(self, service: str, pattern: str) -> float:
        url = self.stack.endpoints.metrics[service]
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            found = re.search(rf"^{pattern} (\S+)$", await answer.text(), re.MULTILINE)
        return -1.0 if found is None else float(found.group(1))


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder = tmp_path_factory.mktemp("reconciler")
    (folder / "models" / "wishes" / "1").mkdir(parents=True)
    (folder / "models" / "wishes" / "config.pbtxt").write_text(CONFIG)
    (folder / "models" / "wishes" / "1" / "model.py").write_text(MODEL)
    config = StackConfig(
        folder / "stack",
        models=("wishes",),
        model_repository=folder / "models",
        preferred_ports=False,
    )
    said: list[str] = []
    only = ("triton", "shipper", "sentinel", "worker", "reconciler")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METER_CAPACITY_INTERVAL_S", "0.5")
        patch.setenv("METER_RECONCILE_GRACE_S", "1.5")
        async with Stack(config, said.append, only=only) as stack:
            yield Running(stack, said)


def is_whole(requests: int) -> Callable[[Verdict], bool]:
    def whole(verdict: Verdict) -> bool:
        executions = verdict.of("executions")
        settled = executions is not None and executions.low == executions.server
        return verdict.requests == requests and verdict.agrees and settled

    return whole


async def test_every_request_that_triton_counts_is_covered(running: Running) -> None:
    for _ in range(2):
        assert await running.wish(*["please"] * 4) == ["granted"] * 4
    assert await running.wish("refuse") == ["as wished"]
    (failed,) = await running.wish("raise")
    assert "as wished" in failed
    slow = asyncio.create_task(running.wish("slow"))
    await asyncio.sleep(0.2)
    queued = await running.wish(*["please"] * 9)
    assert await slow == ["granted"]
    timed_out, full = (sum(text in q for q in queued) for text in ("timeout", "Exceeds"))
    assert (timed_out, full) == (6, 3)

    verdict = await running.verdict(is_whole(8 + 1 + 1 + 1 + timed_out))
    assert verdict.coverage_percent == Decimal("100.00")
    assert (verdict.attributed, verdict.inferred, verdict.missing) == (11, timed_out, 0)
    server = {c.quantity: c.server for c in verdict.comparisons}
    assert (server["answered"], server["failed"], server["timed_out"]) == (10, 1, timed_out)
    assert server["rows"] == 11

    now = by_model(await reconcile(running.stack.settings))["wishes"]
    assert now["agrees"], now
    assert now["coverage_percent"] == "100.00"
    assert now["outcomes"]["failed"]["metered"] == 1
    assert await running.metric("reconciler", r"meter_reconciliation_coverage_ratio\{.*\}") == 1


async def test_a_heartbeat_tells_what_the_boards_and_the_counters_say(running: Running) -> None:
    log_dir = running.stack.settings.log_dir
    board = Board.open(log_dir, "test:0", "a chip", "here/boot/1/other_0", "other")
    try:
        board.begin()
        await asyncio.sleep(0.2)
        board.end()
        rows = await running.until(
            "SELECT wall_ns, busy_ns, idle_ns FROM capacity_devices WHERE device = 'test:0' "
            "AND busy_ns >= 200000000 AND running = 0 LIMIT 1"
        )
        sums = await running.until(
            "SELECT sum(busy_ns) + sum(idle_ns) = sum(wall_ns) FROM capacity_device_minutes "
            "WHERE device = 'test:0' HAVING sum(wall_ns) > 0"
        )
    finally:
        board.close()
    ((wall_ns, busy_ns, idle_ns),) = rows
    assert busy_ns + idle_ns == wall_ns
    assert 0 < idle_ns < wall_ns
    assert await running.metric("sentinel", r'meter_device_busy_seconds\{.*"test:0".*\}') >= 0.2
    assert sums == [(1,)]

    beats = [
        (dict(headers), CapacityHeartbeat.model_validate_json(value))
        for value, headers in await read_topic(running.stack.settings, USAGE_CAPACITY)
    ]
    headers, beat = beats[-1]
    assert headers["ce_type"] == b"inference-meter.usage.capacity.v1"
    assert (headers["ce_source"], headers["ce_id"]) == (
        beat.source.encode(), str(beat.sequence).encode(),
    )  # fmt: skip
    assert beat.triton_answers
    assert [m.model for m in beat.models] == ["wishes"]
    assert {beat.boot_id for _, beat in beats} - {None} == {beat.boot_id}
    own = next(i for i in beat.instances if i.model == "wishes")
    assert own.source.split("/")[:2] == [beat.host, beat.boot_id]
    assert own.executions == beat.models[0].executions
    assert own.idle_ns == own.wall_ns - own.batch_ns
    assert 0 < own.busy_ns <= own.batch_ns


async def test_a_batch_that_is_not_stored_is_found_and_heals_when_it_comes(
    running: Running,
) -> None:
    ((source, sequence),) = await running.ask(
        "SELECT source, sequence FROM cost_requests WHERE model = 'wishes' AND status = 'ok' "
        "ORDER BY sequence LIMIT 1"
    )
    batch = f"source = '{source}' AND sequence = {sequence}"
    await running.ask(
        f"CREATE TABLE withheld ENGINE = Memory AS SELECT * FROM cost_request_lines WHERE {batch}"
    )
    ((lines,),) = await running.ask("SELECT count() FROM withheld")
    await running.ask(f"DELETE FROM cost_request_lines WHERE {batch} SETTINGS mutations_sync = 1")

    found = await running.verdict(lambda v: "executions" in v.confirmed)
    assert set(found.confirmed) >= {"executions", "rows", "answered"}
    assert (found.missing_executions, found.missing) == (1, lines)
    assert found.coverage_percent < 100
    assert not by_model(await reconcile(running.stack.settings))["wishes"]["agrees"]
    missing = r"meter_reconciliation_missing_executions\{.*\}"
    assert await running.metric("reconciler", missing) == 1

    await running.ask("INSERT INTO cost_request_lines SELECT * FROM withheld")
    await running.verdict(lambda v: v.agrees and v.coverage_percent == 100)
    published = [
        Verdict.model_validate_json(value)
        for value, _ in await read_topic(running.stack.settings, USAGE_RECONCILIATION)
    ]
    assert any(v.confirmed for v in published)


async def test_counters_that_begin_anew_are_no_false_alarm(running: Running) -> None:
    before = await running.verdict(lambda v: v.agrees)
    client = grpc.InferenceServerClient(running.stack.settings.triton_grpc)
    await client.unload_model("wishes")
    await client.load_model("wishes")
    await client.close()
    await running.verdict(lambda v: v.counted_after_ns > 0)
    assert await running.wish("please") == ["granted"]
    reloaded = await running.verdict(is_whole(1))
    assert reloaded.boot_id == before.boot_id
    assert reloaded.failures_before.rejected > 0

    await running.kill("reconciler")
    assert await running.wish("please") == ["granted"]
    resumed = await running.verdict(is_whole(2))
    assert resumed.counted_before_ns == reloaded.counted_before_ns

    await running.kill("triton")
    assert await running.wish(*["please"] * 3) == ["granted"] * 3
    restarted = await running.verdict(is_whole(3))
    assert restarted.boot_id != before.boot_id
    alarms = await running.ask(
        "SELECT confirmed, verdict FROM reconciliations "
        f"WHERE notEmpty(confirmed) AND toUnixTimestamp64Nano(time) > {before.time_ns}"
    )
    assert alarms == []

"""However many wait for what is away, the log has one line of its beginning and one of its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from yarl import URL

from metering.errors import SinkUnavailable
from metering.lines import CostLines
from metering.prices import PriceBook
from metering.pricing import price_batch
from metering.usage import UsageBatch
from sinks.http_post import HttpPost, RetryPolicy
from sinks.prometheus import WorkerMetrics
from streams.worker import line_store as line_store_module
from streams.worker import owned as owned_module
from streams.worker import patience as patience_module
from streams.worker import retries as retries_module
from streams.worker.line_store import LineStore
from streams.worker.owned import Owned
from streams.worker.patience import until_there
from streams.worker.transaction import Lost


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_store_module, "WITHIN_S", 0.001)
    for module in (owned_module, patience_module, retries_module):
        monkeypatch.setattr(module, "RETRY_FIRST_S", 0.001)
        monkeypatch.setattr(module, "RETRY_MOST_S", 0.002)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def levels(said: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in said.records]


async def test_lines_of_many_takes_that_wait_for_clickhouse(
    batch_of: Callable[..., UsageBatch], said: pytest.LogCaptureFixture
) -> None:
    attempts = 0

    def write(_: Sequence[CostLines]) -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= 10:
            raise SinkUnavailable("ClickHouse table cost_request_lines", 1, "connection refused")

    store = LineStore(write, WorkerMetrics(CollectorRegistry()))
    for n in range(20):
        store.put(n % 4, CostLines.of(price_batch(batch_of(n), PriceBook([]))))
    for partition in range(4):
        await store.stored(partition)
    assert levels(said) == ["WARNING", "INFO"]
    assert "connection refused" in said.messages[0]


async def test_partitions_that_wait_for_kafka(said: pytest.LogCaptureFixture) -> None:
    class Desk:
        async def close(self) -> None:
            return

    async def make(_: int) -> Desk:
        return Desk()

    problems = [Lost("closed") for _ in range(20)]
    problems += [SinkUnavailable("Kafka at k:9092", 0, "no broker") for _ in range(20)]  # type: ignore[misc]

    async def use(_: Desk) -> None:
        await asyncio.sleep(0)
        if problems:
            raise problems.pop()

    owned = Owned(make, lambda _: True)
    assert all(await asyncio.gather(*(owned.use(partition, use) for partition in range(4))))
    assert levels(said) == ["WARNING", "INFO"]


def test_a_worker_that_waits_at_its_start(said: pytest.LogCaptureFixture) -> None:
    left = iter([True] * 20 + [False])

    def reach() -> None:
        if next(left):
            raise SinkUnavailable("ClickHouse at http://c:8123", 0, "connection refused")

    until_there(reach)
    assert levels(said) == ["WARNING", "INFO"]


async def test_a_webhook_that_is_away(said: pytest.LogCaptureFixture) -> None:
    left = iter([503] * 4 + [200])

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=next(left))

    async def sleep(_: float) -> None:
        return

    application = web.Application()
    application.router.add_post("/secret", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = URL(f"http://127.0.0.1:{runner.addresses[0][1]}/secret")
    async with HttpPost(url, RetryPolicy(), sleep) as post:
        await post.send(b"{}", dict)
    await runner.cleanup()
    assert levels(said) == ["WARNING", "INFO"]
    assert "secret" not in said.text

"""The supervisor restarts a process whose event loop hangs, though a thread of it answers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from streams.settings import Settings
from streams.stack.custody import Custody
from streams.stack.ports import PortBook
from streams.stack.probes import health_watch, http_ok
from streams.stack.recipe import Recipe
from streams.stack.services import SERVICES, health_url, service_recipe
from streams.stack.supervisor import Supervisor
from tests.waiting import until

REPO = Path(__file__).parents[2]
HANGS_ONCE = """
import asyncio, pathlib, sys, time
from prometheus_client import CollectorRegistry
from sinks.health import Liveness, serve

async def run():
    serve(CollectorRegistry(), "127.0.0.1", int(sys.argv[1]), Liveness(bound_s=1.5))
    await asyncio.sleep(1)
    mark = pathlib.Path(sys.argv[2])
    if not mark.exists():
        mark.touch()
        time.sleep(600)
    await asyncio.sleep(600)

asyncio.run(run())
"""


class Process:
    """What ``/healthz`` of a process says."""

    def __init__(self) -> None:
        self.status = 200
        self.asked = 0

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(status=self.status, text="the event loop has not run for 61 s\n")


@pytest.fixture
async def process() -> AsyncIterator[tuple[Process, str]]:
    process = Process()
    application = web.Application()
    application.router.add_get("/healthz", process.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield process, f"http://127.0.0.1:{runner.addresses[0][1]}/healthz"
    await runner.cleanup()


async def test_a_process_is_restarted_that_goes_on_saying_that_it_hangs(
    process: tuple[Process, str],
) -> None:
    own, url = process
    look = health_watch(url, ask_every_s=0, sick_s=0.05)
    assert await look(1) is None
    own.status = 503
    assert await look(1) is None, "one that was frozen says it too, for a moment"
    await asyncio.sleep(0.1)
    assert await look(1) == "the event loop has not run for 61 s"


async def test_a_process_that_was_frozen_for_a_moment_is_left_alone(
    process: tuple[Process, str],
) -> None:
    own, url = process
    look = health_watch(url, ask_every_s=0, sick_s=0.05)
    for status in (503, 200, 503, 200):
        own.status = status
        assert await look(1) is None
        await asyncio.sleep(0.1)


async def test_a_process_that_does_not_answer_is_restarted_after_a_longer_time() -> None:
    book = PortBook()
    look = health_watch(health_url(book.take()), ask_every_s=0, silent_s=0.2)
    assert await look(1) is None, "nobody listens there"
    await asyncio.sleep(0.3)
    reason = await look(1)
    book.release()
    assert reason is not None
    assert "has not answered" in reason


async def test_a_process_is_not_asked_at_every_look(process: tuple[Process, str]) -> None:
    own, url = process
    look = health_watch(url, ask_every_s=600)
    for _ in range(5):
        assert await look(1) is None
    assert own.asked == 0


def test_every_service_is_watched_where_it_is_asked_whether_it_is_ready(tmp_path: Path) -> None:
    for service in SERVICES:
        recipe = service_recipe(service, Settings(), 9400, tmp_path)
        assert recipe.watch is not None, service.name


async def test_a_process_whose_loop_hangs_is_ended_and_started_again(tmp_path: Path) -> None:
    said: list[str] = []
    book = PortBook()
    port = book.take()
    url = health_url(port)
    recipe = Recipe(
        name="one",
        argv=(sys.executable, "-c", HANGS_ONCE, str(port), str(tmp_path / "hung")),
        env={"PYTHONPATH": str(REPO)},
        ready=http_ok(url),
        cwd=REPO,
        watch=lambda: health_watch(url, ask_every_s=0.1, sick_s=0.3),
        stop_timeout_s=0.5,
    )
    custody = Custody(tmp_path)
    await custody.take()
    supervisor = Supervisor([recipe], tmp_path / "logs", custody, said.append)
    try:
        await supervisor.start()
        await until(lambda: any("one: ready again" in line for line in said), timeout_s=60)
    finally:
        await supervisor.stop()
        await custody.release()
        book.release()
    assert any("one: the event loop has not run for" in line for line in said), said

"""Whether a process is alive: its event loop runs. A thread that answers says nothing of that."""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from sinks.health import BOUND_S, HEALTH_PATH, START_BOUND_S, HealthServer, Liveness


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def asked(server: HealthServer, path: str = HEALTH_PATH) -> tuple[int, str]:
    host, port = server.address
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def liveness(clock: Clock) -> Liveness:
    return Liveness(clock=clock)


@pytest.fixture
def server(liveness: Liveness) -> Iterator[HealthServer]:
    registry = CollectorRegistry()
    Counter("some", "Some", registry=registry).inc(3)
    server = HealthServer(registry, "127.0.0.1", 0, liveness)
    yield server
    server.close()


def test_a_loop_that_hangs_is_unhealthy_though_its_metrics_answer_and_healthy_once_it_runs(
    server: HealthServer, liveness: Liveness, clock: Clock
) -> None:
    hangs, may_go_on = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        may_go_on.wait(60)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    loop.call_soon(liveness.follow, loop)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(10)
        loop.call_soon_threadsafe(hang)
        assert hangs.wait(10)
        clock.now_s += BOUND_S
        assert asked(server) == (200, "ok\n")
        clock.now_s += 1
        status, text = asked(server)
        assert status == 503
        assert text == f"the event loop has not run for {BOUND_S + 1:.0f} s\n"
        assert asked(server, "/metrics")[0] == 200
        may_go_on.set()
        deadline = time.monotonic() + 30
        while asked(server)[0] != 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert asked(server) == (200, "ok\n")
    finally:
        may_go_on.set()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_a_process_whose_loop_does_not_run_yet_is_alive_while_its_start_goes_on(
    server: HealthServer, liveness: Liveness, clock: Clock
) -> None:
    clock.now_s += BOUND_S + 1
    assert asked(server)[0] == 200
    liveness.beat()
    for _ in range(3):
        clock.now_s += START_BOUND_S - 1
        assert asked(server)[0] == 200
        liveness.beat()
    clock.now_s += START_BOUND_S + 1
    assert asked(server) == (503, f"the start has not gone on for {START_BOUND_S + 1:.0f} s\n")


def test_metrics_are_served_at_their_path_and_can_be_chosen_by_name(server: HealthServer) -> None:
    assert "some_total 3.0" in asked(server, "/metrics")[1]
    assert "some_total" not in asked(server, "/metrics?name[]=other_total")[1]


def test_an_address_of_either_family_is_served() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        try:
            server = HealthServer(CollectorRegistry(), host, 0, Liveness())
        except OSError:
            assert host == "::1", "this machine has no IPv6"
            continue
        server.close()

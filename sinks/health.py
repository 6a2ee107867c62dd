"""``/metrics`` and ``/healthz`` of a process, from a thread of its own.

The thread answers whatever the process does, so that it answers says nothing of the process.
``/healthz`` says whether the process's event loop has run lately: 200, or 503 with the reason.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from metering.errors import MeteringError

HEALTH_PATH = "/healthz"
BEAT_S = 1.0
BOUND_S = 60.0
"""A loop that has not run for longer hangs. The longest that a healthy one is busy with one thing,
reading a large state or judging very many cohorts on a slow machine, is some seconds."""
START_BOUND_S = 900.0
"""Before its loop runs a process waits for what it needs; one attempt may take minutes."""


class Liveness:
    """When the process last showed that it goes on. ``clock`` is monotonic, in seconds."""

    def __init__(
        self, bound_s: float = BOUND_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bound_s = bound_s
        self._clock = clock
        self._at_s = clock()
        self._is_followed = False

    def beat(self) -> None:
        """Called now and then by a process that has no running loop yet."""
        self._at_s = self._clock()

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """From when the loop runs next, it is what must go on."""
        loop.call_soon(self._beat_on, loop)

    def problem(self) -> str | None:
        """Why the process is to be restarted; ``None``: it is alive."""
        bound_s = self._bound_s if self._is_followed else START_BOUND_S
        age_s = self._clock() - self._at_s
        if age_s <= bound_s:
            return None
        what = "the event loop has not run" if self._is_followed else "the start has not gone on"
        return f"{what} for {age_s:.0f} s"

    def _beat_on(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_followed = True
        self.beat()
        loop.call_later(BEAT_S, self._beat_on, loop)


class HealthServer:
    """``address`` is where it listens; port 0 has become one that is free.

    Raises:
        MeteringError: it can't listen there.
    """

    def __init__(
        self, registry: CollectorRegistry, host: str, port: int, liveness: Liveness
    ) -> None:
        try:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]

            class Server(ThreadingWSGIServer):
                address_family = family

            self._server = make_server(
                str(address[0]), port, _application(registry, liveness), Server, _Silent
            )
        except OSError as exc:
            raise MeteringError(
                f"/metrics can't listen on {host}:{port}: {exc.strerror or exc}. "
                "Set METER_METRICS_HOST and METER_METRICS_PORT to a free address of this machine"
            ) from exc
        self.address: tuple[str, int] = self._server.server_address[:2]  # type: ignore[assignment]
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def serve(registry: CollectorRegistry, host: str, port: int, liveness: Liveness) -> None:
    """Until the process ends. Where a loop runs it is the one that ``liveness`` follows."""
    HealthServer(registry, host, port, liveness)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    liveness.follow(loop)


def _application(registry: CollectorRegistry, liveness: Liveness) -> Any:
    metrics = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] != HEALTH_PATH:
            found: Iterable[bytes] = metrics(environ, start_response)
            return found
        problem = liveness.problem()
        status = "200 OK" if problem is None else "503 Service Unavailable"
        body = f"{problem or 'ok'}\n".encode()
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    return answer


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """A probe every few seconds is nothing for the log."""

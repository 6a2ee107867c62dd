"""A webhook receiver on loopback, so that the demo can say what was delivered, not only sent."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Self

from aiohttp import web


class WebhookReceiver:
    """Takes POSTs of CloudEvents; remembers each anomaly once, however often it comes."""

    def __init__(self) -> None:
        self.anomalies: dict[str, dict[str, Any]] = {}
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/anomalies", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/anomalies"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        try:
            event = json.loads(await request.read())
            data = event["data"]
            self.anomalies[data["anomaly_id"]] = data
        except (ValueError, KeyError, TypeError):
            return web.Response(status=400, text="not an anomaly as a structured CloudEvent\n")
        return web.Response(status=204)

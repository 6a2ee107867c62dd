"""The routes of ClickHouse's HTTP interface, over the embedded engine."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from uuid import uuid4

from aiohttp import ClientError, web

from sinks.embedded import compression, execution
from sinks.embedded.compression import Encoder
from sinks.embedded.engine import Engine, Progress
from sinks.embedded.errors import QueryError
from sinks.embedded.execution import Query
from sinks.embedded.limits import Limits
from sinks.embedded.reply import Reply, error_response
from sinks.embedded.request import Credentials, flag, url_fields
from sinks.embedded.runs import Run, Runs
from sinks.embedded.sessions import Lease, Sessions

logger = logging.getLogger(__name__)

_DRAIN_SILENCE_S = 0.5
_NO_HANDLE = """There is no handle {path}

Use / or /ping for health checks.
Or /replicas_status for more sophisticated health checks.
Send queries with the POST method, or with GET /?query=...
"""


class Server:
    """``known`` is the one user that there is."""

    def __init__(self, engine: Engine, known: Credentials, limits: Limits) -> None:
        self._engine = engine
        self._known = known
        self._limits = limits
        self._runs = Runs(engine, limits.concurrent_queries)
        self._sessions = Sessions(engine)
        self._display_name = socket.gethostname()

    def application(self) -> web.Application:
        app = web.Application()
        for path in ("/ping", "/replicas_status"):
            app.router.add_get(path, self._ok)
        for path in ("/", "/query"):
            app.router.add_get(path, self._query)
            app.router.add_post(path, self._query)
        app.router.add_route("*", "/{path:.*}", self._no_handle)
        return app

    async def close(self) -> None:
        """When the application has stopped: nothing is running, nothing stays open."""
        await self._runs.close()
        self._sessions.close()

    async def _ok(self, _: web.Request) -> web.Response:
        return web.Response(text="Ok.\n", headers={"Content-Type": "text/html; charset=UTF-8"})

    async def _no_handle(self, request: web.Request) -> web.Response:
        return web.Response(status=404, text=_NO_HANDLE.format(path=request.path))

    async def _query(self, request: web.Request) -> web.StreamResponse:
        if request.method != "POST" and not request.query_string:
            return await self._ok(request)
        headers = {"X-ClickHouse-Server-Display-Name": self._display_name}
        url = url_fields(request.raw_path)
        in_blocks = False
        try:
            credentials = Credentials.of(url, request.headers)
            credentials.check(self._known)
            in_blocks = flag(url, "compress")
            query = await Query.read(request, url, self._limits.body_bytes)
            query_id = query.ask.query_id or str(uuid4())
            headers["X-ClickHouse-Query-Id"] = query_id
            if flag(query.ask.settings, "replace_running_query"):
                await self._runs.replace(query_id)
            run = self._runs.begin(query_id)
        except QueryError as error:
            await _drain(request)
            return error_response(error, self._engine.version, headers, in_blocks)
        return await self._answer(request, query, run, credentials.user, headers)

    async def _answer(
        self, request: web.Request, query: Query, run: Run, user: str, headers: dict[str, str]
    ) -> web.StreamResponse:
        seen = Progress()
        error: QueryError | None = None
        lease: Lease | None = None
        reply = self._reply(request, query, headers, seen)
        try:
            try:
                lease = await self._lease(query, run, user)
                run.killable = await run.call(execution.prepare, lease, query, run.query_id)
                if query.statement.insert is not None:
                    await execution.insert(
                        run, lease, query, seen, held_body_bytes=self._limits.held_body_bytes
                    )
                else:
                    async for piece in execution.result(run, lease, query, seen):
                        await reply.write(piece)
            except QueryError as exc:
                error = exc
            finally:
                ending = self._runs.end(run, lease.release if lease is not None else _nothing)
            await asyncio.shield(ending)
            if error is None:
                return await reply.finish()
            await _drain(request)
            return await reply.fail(error, self._engine.version)
        finally:
            reply.close()

    async def _lease(self, query: Query, run: Run, user: str) -> Lease:
        if query.ask.session is not None:
            return self._sessions.take(user, query.ask.session)
        return Lease(await run.call(self._engine.connect), None)

    def _reply(
        self, request: web.Request, query: Query, headers: dict[str, str], seen: Progress
    ) -> Reply:
        ask = query.ask
        headers["X-ClickHouse-Timezone"] = ask.settings.get(
            "session_timezone", self._engine.timezone
        )
        content_type = ""
        if query.output_format is not None:
            headers["X-ClickHouse-Format"] = query.output_format
            content_type = self._engine.content_types.get(query.output_format, "")
        headers["Content-Type"] = content_type or "text/plain; charset=UTF-8"
        if flag(ask.settings, "add_http_cors_header") and "Origin" in request.headers:
            headers["Access-Control-Allow-Origin"] = "*"
        return Reply(
            request,
            headers,
            seen,
            encoding=self._encoding(request, query),
            hold_bytes=ask.hold_bytes,
            in_blocks=ask.compress,
        )

    def _encoding(self, request: web.Request, query: Query) -> tuple[str, Encoder] | None:
        """HTTP's compression of the answer, where both sides want it."""
        settings = query.ask.settings
        compress = settings.get("enable_http_compression")
        wanted = self._engine.compresses_by_default if compress is None else compress != "0"
        name = compression.choose(request.headers.get("Accept-Encoding", "")) if wanted else None
        if name is None:
            return None
        level = settings.get("http_zlib_compression_level", "")
        known = len(level) == 1 and level.isdecimal()
        return name, compression.encoder(
            name, int(level) if known else compression.DEFAULT_ZLIB_LEVEL
        )


async def _nothing() -> None:
    return


async def _drain(request: web.Request) -> None:
    """Read what the client still sends, so that it comes to read the answer."""
    with suppress(TimeoutError, ClientError, ConnectionError):
        while await asyncio.wait_for(request.content.readany(), _DRAIN_SILENCE_S):
            pass

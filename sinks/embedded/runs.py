"""Queries that are running: how many at once, under which ids, and what becomes of them when
their clients have gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sinks.embedded.engine import Engine
from sinks.embedded.errors import QueryError

T = TypeVar("T")
_KILL_AGAIN_S = 0.2
_REPLACE_S = 5.0


class Run:
    """One query. Its blocking calls go to threads, one at a time."""

    def __init__(self, pool: ThreadPoolExecutor, query_id: str) -> None:
        self.query_id = query_id
        self.killable = False
        self._pool = pool
        self._pending: asyncio.Future[Any] | None = None

    async def call(self, work: Callable[..., T], *args: Any) -> T:
        """Do ``work`` in a thread. It goes on there when the caller is cancelled."""
        pending = asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        self._pending = pending
        return await asyncio.shield(pending)

    async def settle(self, kill: Callable[[str], object]) -> None:
        """Wait until no thread works for this run; a killable one is killed until then."""
        while self._pending is not None and not self._pending.done():
            if self.killable:
                await asyncio.to_thread(kill, self.query_id)
            await asyncio.wait({self._pending}, timeout=_KILL_AGAIN_S)
        if self._pending is not None and not self._pending.cancelled():
            self._pending.exception()  # whoever wanted it has had it, or has gone


class Runs:
    """At most ``limit`` at once; an id only once at a time."""

    def __init__(self, engine: Engine, limit: int) -> None:
        self._engine = engine
        self._limit = limit
        self._running: dict[str, Run] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._pool = ThreadPoolExecutor(limit, thread_name_prefix="query")

    def begin(self, query_id: str) -> Run:
        """Raises QueryError where there are too many, or this one is running already."""
        if query_id in self._running:
            raise QueryError.of(
                "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
                f"Query with id = {query_id} is already running.",
            )
        if len(self._running) >= self._limit:
            raise QueryError.of(
                "TOO_MANY_SIMULTANEOUS_QUERIES",
                f"Too many simultaneous queries. Maximum: {self._limit}",
            )
        run = self._running[query_id] = Run(self._pool, query_id)
        return run

    async def replace(self, query_id: str) -> None:
        """Kill the query that runs under this id, if there is one, and wait until it has ended."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + _REPLACE_S
        while query_id in self._running and clock() < deadline:
            await asyncio.to_thread(self._engine.kill, query_id)
            await asyncio.sleep(_KILL_AGAIN_S)

    def end(self, run: Run, release: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Give back the run's place and connection as soon as its thread is done.

        A task of its own, so that it happens whatever becomes of the request.
        """

        async def ending() -> None:
            try:
                await run.settle(self._engine.kill)
                await release()
            finally:
                del self._running[run.query_id]

        task = asyncio.get_running_loop().create_task(ending())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        return task

    async def close(self) -> None:
        """Wait for every ending; call it when no request is left."""
        await asyncio.gather(*self._endings, return_exceptions=True)
        self._pool.shutdown()

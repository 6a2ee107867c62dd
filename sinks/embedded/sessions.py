"""Which connection a request gets: one of its own, or one that ``session_id`` has kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sinks.embedded.body import ExternalTable
from sinks.embedded.engine import Connection, Engine, Progress
from sinks.embedded.errors import QueryError
from sinks.embedded.request import SessionAsk
from sinks.embedded.sql import quoted


class Lease:
    """A connection for one request. What belongs to the request alone is undone after it."""

    def __init__(self, connection: Connection, give_back: Callable[[bool], None] | None) -> None:
        self.connection = connection
        self._give_back = give_back
        self._settings: dict[str, str | None] = {}
        self._database: str | None = None
        self._tables: list[str] = []

    @property
    def kept(self) -> bool:
        """Whether another request gets this connection afterwards."""
        return self._give_back is not None

    def dress(
        self, database: str | None, settings: Mapping[str, str], tables: Sequence[ExternalTable]
    ) -> None:
        """Blocks. Raises QueryError for a database, setting or table that can't be had."""
        connection = self.connection
        if self.kept:
            self._settings = connection.set_now(list(settings))
            self._database = connection.database() if database is not None else None
        if database is not None:
            connection.use(database)
        connection.apply(settings)
        for table in tables:
            connection.command(f"CREATE TEMPORARY TABLE {quoted(table.name)} ({table.structure})")
            self._tables.append(table.name)
            inserter = connection.insert(
                f"INSERT INTO {quoted(table.name)}", table.format, Progress()
            )
            if table.data:
                inserter.append(table.data)
            inserter.finish()

    async def release(self) -> None:
        if self._give_back is None:
            await asyncio.to_thread(self.connection.close)
            return
        usable = False
        try:
            await asyncio.to_thread(self._undress)
            usable = True
        finally:
            self._give_back(usable)

    def _undress(self) -> None:
        self.connection.abandon()
        for table in self._tables:
            self.connection.command(f"DROP TEMPORARY TABLE IF EXISTS {quoted(table)}")
        self.connection.restore(self._settings)
        if self._database is not None:
            self.connection.use(self._database)


@dataclass(slots=True)
class _Kept:
    connection: Connection
    busy: bool = True
    expiry: asyncio.TimerHandle | None = None


class Sessions:
    """By user and session id; one request at a time; gone after a time without requests."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: dict[tuple[str, str], _Kept] = {}

    def take(self, user: str, ask: SessionAsk) -> Lease:
        """Raises QueryError where another request has the session, or it should exist."""
        key = (user, ask.session_id)
        kept = self._kept.get(key)
        if kept is None:
            if ask.must_exist:
                raise QueryError.of("SESSION_NOT_FOUND", f"Session {ask.session_id} not found")
            kept = self._kept[key] = _Kept(self._engine.connect())
        elif kept.busy:
            raise QueryError.of(
                "SESSION_IS_LOCKED", f"Session {ask.session_id} is locked by a concurrent client"
            )
        if kept.expiry is not None:
            kept.expiry.cancel()
        kept.busy = True
        return Lease(kept.connection, lambda usable: self._give_back(key, ask, usable))

    def _give_back(self, key: tuple[str, str], ask: SessionAsk, usable: bool) -> None:
        kept = self._kept[key]
        kept.busy = False
        if ask.close or not usable:
            self._drop(key)
        else:
            loop = asyncio.get_running_loop()
            kept.expiry = loop.call_later(ask.timeout_s, self._drop, key)

    def _drop(self, key: tuple[str, str]) -> None:
        self._kept.pop(key).connection.close()

    def close(self) -> None:
        for key, kept in list(self._kept.items()):
            if kept.expiry is not None:
                kept.expiry.cancel()
            self._drop(key)

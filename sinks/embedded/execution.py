"""One query from its request to the pieces of its result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import ClientPayloadError, web

from sinks.embedded import blocks, compression, formats, native
from sinks.embedded.body import Body, ExternalTable, read_form
from sinks.embedded.engine import Progress
from sinks.embedded.errors import QueryError
from sinks.embedded.request import Ask
from sinks.embedded.rewriting import QUERY_ID_SETTING, as_utf8, selection, with_query_ids
from sinks.embedded.runs import Run
from sinks.embedded.sessions import Lease
from sinks.embedded.statement import Statement, examine

_HEAD_BYTES = 256 << 10
_MAX_QUERY_BYTES = 16 << 20
_THREAD_ABOVE_BYTES = 64 << 10
S = TypeVar("S", bytes, str)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Query:
    """A request whose query has been read; ``body`` still holds the data, if there is any."""

    ask: Ask
    statement: Statement
    sql: str
    body: Body
    tables: list[ExternalTable]
    must_only_read: bool

    @property
    def output_format(self) -> str | None:
        """None where the statement has no result."""
        if not self.statement.has_result:
            return None
        return self.statement.format or self.ask.default_format

    @classmethod
    async def read(cls, request: web.Request, url: Mapping[str, str], max_body_bytes: int) -> Query:
        """Raises QueryError for everything that can be refused before there is a connection."""
        multipart = request.content_type == "multipart/form-data"
        encoding = request.headers.get("Content-Encoding", "")
        tables: list[ExternalTable] = []
        if multipart:
            if encoding.lower() not in ("", "identity"):
                raise QueryError.of("NOT_IMPLEMENTED", f"A form can't have the encoding {encoding}")
            fields, tables = await read_form(request, url)
            url = {**url, **fields}
        ask = Ask.of(url, request.headers, multipart)
        if request.method != "POST" and ask.settings.get("readonly", "2") != "2":
            raise QueryError.of("READONLY", "Cannot modify 'readonly' setting in readonly mode")
        before = f"{ask.query}\n".encode(errors="surrogateescape") if ask.query else b""
        if multipart:
            body = Body(before)
        else:
            body = Body(before, _plain(request, encoding, ask.decompress, max_body_bytes))
        statement, sql = await _statement(body)
        only_read = request.method != "POST" or ask.settings.get("readonly", "0") != "0"
        return cls(ask, statement, sql, body, tables, only_read)


def _plain(
    request: web.Request, encoding: str, in_blocks: bool, max_body_bytes: int
) -> AsyncIterator[bytes]:
    """The body without its encodings: at most ``max_body_bytes`` before, between and after them."""
    body = compression.bounded(request.content.iter_any(), max_body_bytes)
    body = compression.bounded(compression.decoded(body, encoding), max_body_bytes)
    if not in_blocks:
        return body
    return compression.bounded(blocks.decoded(body), max_body_bytes)


async def _statement(body: Body) -> tuple[Statement, str]:
    head = await body.head(_HEAD_BYTES)
    statement = await _in_thread(examine, head)
    if statement.insert is None and not body.ended:
        head = await body.head(_MAX_QUERY_BYTES + 1)
        if len(head) > _MAX_QUERY_BYTES:
            raise QueryError.of(
                "QUERY_IS_TOO_LARGE", f"The query has more than {_MAX_QUERY_BYTES} bytes"
            )
        statement = await _in_thread(examine, head)
    text = head if statement.insert is None else head[: statement.insert.statement_end]
    return statement, await _in_thread(as_utf8, text)


async def _in_thread(work: Callable[[S], T], sql: S) -> T:
    """Others are served meanwhile where the SQL is long."""
    if len(sql) > _THREAD_ABOVE_BYTES:
        return await asyncio.to_thread(work, sql)
    return work(sql)


def prepare(lease: Lease, query: Query, query_id: str) -> bool:
    """Put on what belongs to the request; blocks. Says whether the query ends with its client."""
    settings = {k: v for k, v in query.ask.settings.items() if k != "readonly"}
    settings[QUERY_ID_SETTING] = query_id
    if query.must_only_read and lease.kept and not query.statement.reads_only:
        raise QueryError.of("READONLY", "Cannot execute query in readonly mode")
    lease.dress(query.ask.database, settings, query.tables)
    if query.must_only_read and not lease.kept:
        # The engine lets nobody leave this mode again: a session's connection is never put in it.
        lease.connection.apply({"readonly": query.ask.settings.get("readonly", "2")})
    return query.statement.reads_only


async def insert(
    run: Run, lease: Lease, query: Query, seen: Progress, *, held_body_bytes: int
) -> None:
    """Pass the data on as it comes. A body that breaks off inserts nothing that isn't whole.

    Where the engine keeps all data of the format in memory, there may be ``held_body_bytes``.
    """
    data = query.statement.insert
    if data is None:
        return
    connection = lease.connection
    await run.call(connection.bind, query.ask.params)
    inserter = await run.call(connection.insert, query.sql, data.format, seen)
    try:
        pieces = query.body.after(data.data_start)
        if formats.held_input(data.format):
            pieces = compression.bounded(pieces, held_body_bytes)
        async for piece in pieces:
            await run.call(inserter.append, piece)
    except ClientPayloadError as exc:
        raise QueryError.of("NETWORK_ERROR", f"The body breaks off: {exc}") from exc
    await run.call(inserter.finish)


async def result(run: Run, lease: Lease, query: Query, seen: Progress) -> AsyncIterator[bytes]:
    """The result in pieces; the first comes when there is one."""
    ask = query.ask
    output_format = query.output_format or ask.default_format
    version = ask.protocol_version if output_format == "Native" else 0
    described = await _described(run, lease, query) if version else None
    pieces = await run.call(
        lease.connection.read,
        await _in_thread(
            lambda _: with_query_ids(query.sql, query.statement, run.query_id), query.sql
        ),
        output_format,
        ask.params,
        formats.streamable(output_format, query.sql, ask.settings),
        seen,
    )
    while (piece := await run.call(next, pieces, None)) is not None:
        yield await run.call(native.for_version, version, piece, described) if version else piece


async def _described(run: Run, lease: Lease, query: Query) -> list[native.Described] | None:
    """The result's columns with their time zones, which blocks of version 0 leave out."""
    selected = await _in_thread(lambda _: selection(query.sql, query.statement), query.sql)
    if selected is None:
        return None
    return await run.call(lease.connection.describe, selected, query.ask.params)

"""One query from its request to the pieces of its result."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import ClientPayloadError, web

from sinks.embedded import compression, formats
from sinks.embedded.body import Body, ExternalTable, read_form
from sinks.embedded.engine import Progress
from sinks.embedded.errors import QueryError
from sinks.embedded.request import Ask
from sinks.embedded.runs import Run
from sinks.embedded.sessions import Lease
from sinks.embedded.statement import InsertData, Statement, examine

_HEAD_BYTES = 256 << 10
_MAX_QUERY_BYTES = 16 << 20


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
    async def read(cls, request: web.Request) -> Query:
        """Raises QueryError for everything that can be refused before there is a connection."""
        multipart = request.content_type == "multipart/form-data"
        url = dict(request.query)
        tables: list[ExternalTable] = []
        if multipart:
            fields, tables = await read_form(request, url)
            url |= fields
        ask = Ask.of(url, request.headers, multipart)
        if request.method != "POST" and ask.settings.get("readonly", "2") != "2":
            raise QueryError.of("READONLY", "Cannot modify 'readonly' setting in readonly mode")
        before = f"{ask.query}\n".encode() if ask.query else b""
        if multipart:
            body = Body(before)
        else:
            encoding = request.headers.get("Content-Encoding", "")
            body = Body(before, compression.decoded(request.content.iter_any(), encoding))
        statement, sql = await _statement(body)
        only_read = request.method != "POST" or ask.settings.get("readonly", "0") != "0"
        return cls(ask, statement, sql, body, tables, only_read)


async def _statement(body: Body) -> tuple[Statement, str]:
    head = await body.head(_HEAD_BYTES)
    statement = examine(head)
    if statement.insert is None and not body.ended:
        head = await body.head(_MAX_QUERY_BYTES)
        if not body.ended:
            raise QueryError.of(
                "QUERY_IS_TOO_LARGE", f"The query has more than {_MAX_QUERY_BYTES} bytes"
            )
        statement = examine(head)
    text = head if statement.insert is None else head[: statement.insert.statement_end]
    try:
        return statement, text.decode()
    except UnicodeDecodeError as exc:
        raise QueryError.of("SYNTAX_ERROR", f"The query is not UTF-8: {exc}") from exc


def prepare(lease: Lease, query: Query, query_id: str) -> bool:
    """Put on what belongs to the request; blocks. Says whether the query can be killed by id."""
    settings = {k: v for k, v in query.ask.settings.items() if k != "readonly"}
    by_id = "log_comment" not in settings
    if by_id:
        settings["log_comment"] = query_id
    if query.must_only_read and lease.kept and not query.statement.reads_only:
        raise QueryError.of("READONLY", "Cannot execute query in readonly mode")
    lease.dress(query.ask.database, settings, query.tables)
    if query.must_only_read and not lease.kept:
        # The engine lets nobody leave this mode again: a session's connection is never put in it.
        lease.connection.apply({"readonly": query.ask.settings.get("readonly", "2")})
    return by_id and query.statement.reads_only


async def insert(run: Run, lease: Lease, query: Query, data: InsertData, seen: Progress) -> None:
    """Pass the data on as it comes. A body that breaks off inserts nothing that isn't whole."""
    connection = lease.connection
    await run.call(connection.bind, query.ask.params)
    inserter = await run.call(connection.insert, query.sql, data.format, seen)
    try:
        async for piece in query.body.after(data.data_start):
            await run.call(inserter.append, piece)
    except ClientPayloadError as exc:
        raise QueryError.of("NETWORK_ERROR", f"The body breaks off: {exc}") from exc
    await run.call(inserter.finish)


async def result(run: Run, lease: Lease, query: Query, seen: Progress) -> AsyncIterator[bytes]:
    """The result in pieces; the first comes when there is one."""
    ask = query.ask
    output_format = query.output_format or ask.default_format
    pieces = await run.call(
        lease.connection.read,
        query.sql,
        output_format,
        ask.params,
        formats.streamable(output_format, query.sql, ask.settings),
        seen,
    )
    while (piece := await run.call(next, pieces, None)) is not None:
        yield piece

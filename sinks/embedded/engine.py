"""The engine: one per process and directory; a connection per request, thrown away after it.

A connection costs 0.1 ms, has settings and temporary tables of its own, and runs one query at
a time; connections run at the same time. Everything here blocks: it is called from threads.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import chdb

from sinks.embedded import formats
from sinks.embedded.errors import DirectoryInUse, QueryError
from sinks.embedded.limits import Limits
from sinks.embedded.native import Described
from sinks.embedded.native_types import varint
from sinks.embedded.rewriting import QUERY_ID_SETTING
from sinks.embedded.sql import escaped, literal, parameter_name, quoted, unescaped

_open_connection: Callable[[str], Any] = chdb.connect
_UNSTREAMABLE = "Streaming query is not supported"
_ENDINGS = ("QUERY_WAS_CANCELLED", "TIMEOUT_EXCEEDED", "MEMORY_LIMIT_EXCEEDED")
DEFAULT_DATABASE = "default"


@dataclass(slots=True)
class Progress:
    """What X-ClickHouse-Summary says; grows while a result is read."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    result_bytes: int = 0


class Inserter:
    """An INSERT that takes its data in pieces; `Connection.abandon` gives it up.

    Data that makes up no more than one block is there at ``finish`` or not at all.
    """

    def __init__(self, inserter: Any, progress: Progress) -> None:
        self._inserter = inserter
        self._progress = progress

    def append(self, data: bytes) -> None:
        try:
            self._inserter.append(data)
        except RuntimeError as exc:
            raise QueryError.parse(str(exc)) from exc

    def finish(self) -> None:
        try:
            done = self._inserter.finish()
        except RuntimeError as exc:
            raise QueryError.parse(str(exc)) from exc
        self._progress.written_rows = done.rows_written
        self._progress.written_bytes = done.bytes_written


class Connection:
    """Settings, database and temporary tables of one client; one query at a time."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._open: Any = None

    def command(self, sql: str, output_format: str = "TSV") -> bytes:
        """The whole result of a statement."""
        return b"".join(self._whole(sql, output_format, {}, Progress()))

    def apply(self, settings: Mapping[str, str]) -> None:
        """SET them all, or none."""
        if settings:
            self.command(
                "SET " + ", ".join(f"{name} = {literal(value)}" for name, value in settings.items())
            )

    def describe(self, selection: str, params: Mapping[str, str]) -> list[Described] | None:
        """The columns of a SELECT with their full types; None where the engine can't say.

        Raises QueryError where the query was killed, or out of time or memory, while it was asked.
        """
        asked = (
            f"DESCRIBE TABLE ({selection}\n) SETTINGS describe_compact_output = 1, "
            "describe_include_subcolumns = 0, print_pretty_type_names = 0"
        )
        try:
            rows = b"".join(self._whole(asked, "RowBinary", params, Progress()))
        except QueryError as exc:
            if exc.name in _ENDINGS:
                raise
            return None
        texts: list[bytes] = []
        at = 0
        while at < len(rows):
            size, start = varint(rows, at)
            at = start + size
            texts.append(rows[start:at])
        return [
            Described(name, kind.decode())
            for name, kind in zip(texts[::2], texts[1::2], strict=True)
        ]

    def bind(self, params: Mapping[str, str]) -> None:
        """Values for ``{name:Type}`` in statements that follow, escaped as in TSV."""
        for name, value in params.items():
            self.command(f"SET param_{parameter_name(name)} = {literal(value)}")

    def database(self) -> str:
        return self.command("SELECT currentDatabase() FORMAT TSVRaw").decode().removesuffix("\n")

    def use(self, database: str) -> None:
        self.command(f"USE {quoted(database)}")

    def set_now(self, names: list[str]) -> dict[str, str | None]:
        """The values that these settings have now; None for the default."""
        given = ", ".join(map(literal, names))
        rows = self.command(
            f"SELECT name, value, changed FROM system.settings WHERE name IN ({given})"  # noqa: S608  literals
        )
        values: dict[str, str | None] = {}
        for row in rows.decode().splitlines():
            name, value, changed = row.split("\t")
            values[name] = unescaped(value) if changed == "1" else None
        return values

    def restore(self, values: Mapping[str, str | None]) -> None:
        for name, value in values.items():
            self.command(f"SET {name} = {'DEFAULT' if value is None else literal(value)}")

    def read(
        self,
        sql: str,
        output_format: str,
        params: Mapping[str, str],
        streamed: bool,
        seen: Progress,
    ) -> Iterator[bytes]:
        """The result, in pieces where ``streamed``; the first is ready when it has been computed.

        An empty result of a format with a header is computed twice, for the header's sake.
        """
        if not streamed:
            return self._whole(sql, output_format, params, seen)
        try:
            stream = self._connection.send_query(sql, output_format, params=_escaped(params))
        except (RuntimeError, TypeError) as exc:
            if _UNSTREAMABLE in str(exc):
                return self._whole(sql, output_format, params, seen)
            raise QueryError.parse(str(exc)) from exc
        self._open = stream
        return self._streamed(stream, sql, output_format, params, seen)

    def _whole(
        self, sql: str, output_format: str, params: Mapping[str, str], seen: Progress
    ) -> Iterator[bytes]:
        try:
            result = self._connection.query(sql, output_format, params=_escaped(params))
        except (RuntimeError, TypeError) as exc:
            raise QueryError.parse(str(exc)) from exc
        seen.written_rows = result.rows_written()
        seen.written_bytes = result.bytes_written()
        _add(seen, result)
        yield result.bytes()

    def _streamed(
        self, stream: Any, sql: str, output_format: str, params: Mapping[str, str], seen: Progress
    ) -> Iterator[bytes]:
        measure = formats.header_of(output_format)
        header: bytes | None = None
        try:
            for result in stream:
                _add(seen, result)
                piece = result.bytes()
                if header is None:
                    header = piece[: measure(piece)] if measure is not None else b""
                    yield piece
                elif not piece.startswith(header):
                    raise QueryError.of("LOGICAL_ERROR", f"{output_format} changed its header")
                else:
                    yield piece[len(header) :] if header else piece
        except RuntimeError as exc:
            raise QueryError.parse(str(exc)) from exc
        if header is None and formats.has_header(output_format):
            yield from self._whole(sql, output_format, params, seen)

    def insert(self, sql: str, input_format: str, seen: Progress) -> Inserter:
        try:
            inserter = self._connection.send_insert(sql, input_format)
        except (RuntimeError, TypeError) as exc:
            raise QueryError.parse(str(exc)) from exc
        self._open = inserter
        return Inserter(inserter, seen)

    def abandon(self) -> None:
        """Give up a result or an INSERT that was not brought to its end."""
        still_open, self._open = self._open, None
        if still_open is not None:
            still_open.cancel()

    def close(self) -> None:
        """Whatever is still open is given up with it."""
        self._connection.close()


class Engine:
    """Owns the directory for as long as the process lives, kill -9 included.

    ``database`` is the one of clients that name none. It is created; once it is dropped, `default`
    takes its place.

    Raises:
        DirectoryInUse: another process has it.
    """

    def __init__(self, path: Path, limits: Limits, database: str = DEFAULT_DATABASE) -> None:
        path.mkdir(parents=True, exist_ok=True)
        target = str(path.resolve())
        self._target = f"{target}{'&' if '?' in target else '?'}" + (
            f"max_server_memory_usage={limits.memory_bytes}"
        )
        self._limits = limits
        self._database = DEFAULT_DATABASE
        self._lock = os.open(path / "embedded.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(self._lock)
            raise DirectoryInUse(f"{path} is in use by another process of this kind") from exc
        # The engine lives while a connection is open; this one also sends the KILLs.
        self._keeper = self.connect()
        self._keeper_busy = threading.Lock()
        self._keeper.command(f"CREATE DATABASE IF NOT EXISTS {quoted(database)}")
        self._database = database
        version, timezone, compress = (
            self._keeper.command(
                "SELECT version(), timezone(), getSetting('enable_http_compression')"
            )
            .decode()
            .rstrip("\n")
            .split("\t")
        )
        self.version: str = version
        self.timezone: str = timezone
        self.compresses_by_default: bool = compress in ("1", "true")
        rows = self._keeper.command("SELECT name, content_type FROM system.formats").decode()
        self.content_types: dict[str, str] = dict(row.split("\t") for row in rows.splitlines())

    def connect(self) -> Connection:
        connection = Connection(_open_connection(self._target))
        connection.apply(
            {
                "implicit_select": "0",
                "allow_introspection_functions": "0",
                "max_memory_usage": str(self._limits.query_memory_bytes),
            }
        )
        if self._database != DEFAULT_DATABASE:
            with suppress(QueryError):  # dropped: in `default`, as at first
                connection.use(self._database)
        return connection

    def kill(self, query_id: str) -> None:
        """Ask the query that its client calls so to end; it ends at its next block."""
        with self._keeper_busy:
            self._keeper.command(
                f"KILL QUERY WHERE Settings['{QUERY_ID_SETTING}'] = {literal(query_id)} ASYNC"
            )

    def close(self) -> None:
        self._keeper.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _escaped(params: Mapping[str, str]) -> dict[str, str]:
    return {name: escaped(value) for name, value in params.items()}


def _add(seen: Progress, result: Any) -> None:
    seen.read_rows += result.storage_rows_read()
    seen.read_bytes += result.storage_bytes_read()
    seen.result_rows += result.rows_read()
    seen.result_bytes += result.bytes_read()

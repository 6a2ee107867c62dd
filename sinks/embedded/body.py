"""The query and its data: from the URL and the body, or from the fields of a form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from aiohttp import BodyPartReader, web

from sinks.embedded import compression
from sinks.embedded.errors import QueryError

_GATHER_BYTES = 1 << 20
_SILENCE_S = 30.0
_MAX_FORM_BYTES = 64 << 20


class Body:
    """Bytes that are read once, from their beginning."""

    def __init__(self, before: bytes, pieces: AsyncIterator[bytes] | None = None) -> None:
        self._held = bytearray(before)
        self._pieces = pieces
        self.ended = pieces is None

    async def head(self, at_least: int) -> bytes:
        """The first bytes, at least this many if there are; they are still to be read."""
        while len(self._held) < at_least and not self.ended:
            await self._more()
        return bytes(self._held)

    async def after(self, offset: int) -> AsyncIterator[bytes]:
        """Everything behind ``offset``, in pieces of about 1 MiB."""
        del self._held[:offset]
        while True:
            while len(self._held) < _GATHER_BYTES and not self.ended:
                await self._more()
            if self._held:
                piece, self._held = bytes(self._held), bytearray()
                yield piece
            if self.ended and not self._held:
                return

    async def _more(self) -> None:
        try:
            async with asyncio.timeout(_SILENCE_S):
                piece = await anext(self._pieces, None) if self._pieces is not None else None
        except TimeoutError as exc:
            raise QueryError.of(
                "SOCKET_TIMEOUT", f"The body has not gone on for {_SILENCE_S:g} s"
            ) from exc
        if piece is None:
            self.ended = True
        else:
            self._held += piece


@dataclass(frozen=True, slots=True)
class ExternalTable:
    """A table that comes with the query; ``structure`` is its columns in SQL."""

    name: str
    structure: str
    format: str
    data: bytes


async def read_form(
    request: web.Request, url: Mapping[str, str]
) -> tuple[dict[str, str], list[ExternalTable]]:
    """Fields with their values, and files as tables; held in memory.

    Raises:
        QueryError: a table without a structure, or more than 64 MiB.
    """
    fields: dict[str, str] = {}
    files: list[tuple[str, bytes]] = []
    left = _MAX_FORM_BYTES
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name is None:
                raise QueryError.of("BAD_ARGUMENTS", "a part of the form has no name")
            data = await _part(part, left)
            left -= len(data) + len(part.name)
            if part.filename is None:
                fields[part.name] = data.decode(errors="surrogateescape")
            else:
                files.append((part.name, data))
    except ValueError as exc:
        raise QueryError.of("BAD_ARGUMENTS", f"The form can't be read: {exc}") from exc
    given = {**url, **fields}
    return fields, [_table(name, data, given) for name, data in files]


async def _part(part: BodyPartReader, max_bytes: int) -> bytes:
    """A field or a file, decompressed within a bound, which aiohttp's ``decode`` doesn't have."""

    async def chunks() -> AsyncIterator[bytes]:
        while chunk := await part.read_chunk():
            yield chunk

    if (transfer := part.headers.get("Content-Transfer-Encoding", "binary")).lower() not in (
        *("binary", "8bit", "7bit"),
    ):
        raise QueryError.of("NOT_IMPLEMENTED", f"Content-Transfer-Encoding {transfer} of a form")
    data = bytearray()
    encoding = part.headers.get("Content-Encoding", "")
    raw = compression.bounded(chunks(), _MAX_FORM_BYTES)
    async for piece in compression.decoded(raw, encoding):
        data += piece
        if len(data) > max_bytes:
            raise QueryError.of(
                "QUERY_IS_TOO_LARGE", f"the form has more than {_MAX_FORM_BYTES >> 20} MiB"
            )
    return bytes(data)


def _table(name: str, data: bytes, given: Mapping[str, str]) -> ExternalTable:
    structure = given.get(f"{name}_structure")
    if structure is None and (types := given.get(f"{name}_types")) is not None:
        structure = ", ".join(f"_{i} {t}" for i, t in enumerate(types.split(","), 1))
    if structure is None:
        raise QueryError.of(
            "BAD_ARGUMENTS", f"Neither structure nor types have not been provided for {name}"
        )
    return ExternalTable(name, structure, given.get(f"{name}_format", "TabSeparated"), data)

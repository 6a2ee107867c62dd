"""The answer: held back while an error can still become its status, then streamed."""

from __future__ import annotations

import asyncio
import json
import secrets
import string
import tempfile
from collections.abc import Mapping
from time import monotonic_ns

from aiohttp import web

from sinks.embedded import blocks
from sinks.embedded.compression import Encoder
from sinks.embedded.engine import Progress
from sinks.embedded.errors import QueryError

_IN_MEMORY_BYTES = 8 << 20
_PIECE_BYTES = 256 << 10
_THREAD_ABOVE_BYTES = 64 << 10


class Reply:
    """Up to ``hold_bytes`` are held (None: all of it, on disk when it grows).

    ``in_blocks`` puts the result into ClickHouse's compressed blocks; ``encoding`` is HTTP's.
    """

    def __init__(
        self,
        request: web.Request,
        headers: Mapping[str, str],
        progress: Progress,
        encoding: tuple[str, Encoder] | None,
        *,
        hold_bytes: int | None,
        in_blocks: bool,
    ) -> None:
        self._request = request
        self._headers = dict(headers)
        self._progress = progress
        self._encoding = encoding[0] if encoding is not None else None
        self._encoder = encoding[1] if encoding is not None else None
        self._blocks = blocks.BlockEncoder() if in_blocks else None
        self._hold_bytes = hold_bytes
        self._held = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115  closed in close()
        self._started_ns = monotonic_ns()
        self._tag = "".join(secrets.choice(string.ascii_lowercase) for _ in range(16))
        self.response: web.StreamResponse | None = None

    async def write(self, piece: bytes) -> None:
        if self._blocks is not None:
            piece = await _compressed(self._blocks, piece)
        if self.response is not None:
            await self._send(self.response, piece)
            return
        self._held.write(piece)
        if self._hold_bytes is not None and self._held.tell() > self._hold_bytes:
            await self._commit()

    async def finish(self) -> web.StreamResponse:
        response = self.response or await self._commit()
        if self._encoder is not None:
            await response.write(self._encoder.flush())
        await response.write_eof()
        return response

    async def fail(self, error: QueryError, version: str) -> web.StreamResponse:
        """The error as the answer; inside the answer, and cut off, where that has begun.

        A client must not take a part for the whole: the last chunk is never sent.
        """
        body = error.body(version)
        if self.response is None:
            return error_response(error, version, self._headers, self._blocks is not None)
        text = body.encode(errors="replace")
        await self._send(
            self.response,
            b"\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n"
            % (self._tag.encode(), text, len(text), self._tag.encode()),
        )
        if self._encoder is not None:
            await self.response.write(self._encoder.flush())
        if self._request.transport is not None:
            self._request.transport.close()
        return self.response

    def close(self) -> None:
        self._held.close()

    async def _commit(self) -> web.StreamResponse:
        self.response = web.StreamResponse(headers=self._headers)
        self.response.headers["X-ClickHouse-Summary"] = self._summary()
        self.response.headers["X-ClickHouse-Exception-Tag"] = self._tag
        if self._encoding is not None:
            self.response.headers["Content-Encoding"] = self._encoding
        self.response.enable_chunked_encoding()
        await self.response.prepare(self._request)
        self._held.seek(0)
        while piece := self._held.read(_PIECE_BYTES):
            await self._send(self.response, piece)
        self._held.truncate(0)
        return self.response

    async def _send(self, response: web.StreamResponse, piece: bytes) -> None:
        if self._encoder is not None:
            piece = await _compressed(self._encoder, piece)
        if piece:
            await response.write(piece)

    def _summary(self) -> str:
        seen = self._progress
        return json.dumps(
            {
                "read_rows": str(seen.read_rows),
                "read_bytes": str(seen.read_bytes),
                "written_rows": str(seen.written_rows),
                "written_bytes": str(seen.written_bytes),
                "total_rows_to_read": str(seen.read_rows),
                "result_rows": str(seen.result_rows or seen.written_rows),
                "result_bytes": str(seen.result_bytes or seen.written_bytes),
                "elapsed_ns": str(monotonic_ns() - self._started_ns),
            },
            separators=(",", ":"),
        )


async def _compressed(encoder: Encoder, piece: bytes) -> bytes:
    if len(piece) > _THREAD_ABOVE_BYTES:
        return await asyncio.to_thread(encoder.compress, piece)
    return encoder.compress(piece)


def error_response(
    error: QueryError, version: str, headers: Mapping[str, str], in_blocks: bool
) -> web.Response:
    text = error.body(version).encode(errors="replace")
    return web.Response(
        status=error.status,
        body=blocks.encode(text) if in_blocks else text,
        headers={
            **{k: v for k, v in headers.items() if k != "X-ClickHouse-Format"},
            "X-ClickHouse-Exception-Code": str(error.code),
            "Content-Type": "text/plain; charset=UTF-8",
        },
    )

"""Bodies in the encodings that HTTP names: gzip, deflate, zstd, lz4 frames."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol

import lz4.frame
import zstandard

from sinks.embedded.errors import QueryError


class Encoder(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Lz4:
    def __init__(self) -> None:
        self._frame = lz4.frame.LZ4FrameCompressor()
        self._head: bytes = self._frame.begin()

    def compress(self, data: bytes, /) -> bytes:
        head, self._head = self._head, b""
        return head + bytes(self._frame.compress(data))

    def flush(self) -> bytes:
        return self._head + bytes(self._frame.flush())


_ENCODERS: Final[dict[str, Callable[[], Encoder]]] = {  # in ClickHouse's order of preference
    "zstd": lambda: zstandard.ZstdCompressor(level=1).compressobj(),
    "lz4": _Lz4,
    "gzip": lambda: zlib.compressobj(3, zlib.DEFLATED, 31),
    "deflate": lambda: zlib.compressobj(3, zlib.DEFLATED, 15),
}
_DECODERS: Final[dict[str, Callable[[], Any]]] = {  # each has decompress, eof and unused_data
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "gzip": lambda: zlib.decompressobj(31),
    "x-gzip": lambda: zlib.decompressobj(31),
    "deflate": lambda: zlib.decompressobj(15),
}
_CORRUPT = (zlib.error, zstandard.ZstdError, RuntimeError, EOFError)


def choose(accept_encoding: str) -> str | None:
    """The encoding to answer with; None for as it is."""
    wanted = {
        name.strip().lower()
        for name, _, weight in (part.partition(";") for part in accept_encoding.split(","))
        if weight.replace(" ", "") not in ("q=0", "q=0.0")
    }
    return next((name for name in _ENCODERS if name in wanted), None)


def encoder(name: str) -> Encoder:
    return _ENCODERS[name]()


async def decoded(body: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """The body without its encoding; several frames after one another are one body.

    Raises:
        QueryError: an encoding that is not known; data that is corrupt or ends in mid-frame.
    """
    if encoding in ("", "identity"):
        async for piece in body:
            yield piece
        return
    make = _DECODERS.get(encoding.lower())
    if make is None:
        raise QueryError.of(
            "UNKNOWN_COMPRESSION_METHOD",
            f"Unknown compression method '{encoding}': known are {', '.join(_DECODERS)}",
        )
    frame = None
    async for piece in body:
        data = piece
        while data:
            frame = make() if frame is None else frame
            try:
                plain = bytes(frame.decompress(data))
            except _CORRUPT as exc:
                raise QueryError.of(
                    "CANNOT_DECOMPRESS", f"Cannot decompress the {encoding} body: {exc}"
                ) from exc
            data = b""
            if frame.eof:
                data, frame = bytes(frame.unused_data or b""), None
            if plain:
                yield plain
    if frame is not None:
        raise QueryError.of("CANNOT_DECOMPRESS", f"The {encoding} body ends in mid-frame")

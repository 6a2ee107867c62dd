"""Bodies in the encodings that HTTP names: gzip, deflate, zstd, lz4 frames.

Every decoder returns at most `PIECE_BYTES` at a time, whatever the body claims to hold, so a small
body that decompresses to a large one never takes more memory than a large body does.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

import lz4.frame
import zstandard

from sinks.embedded.errors import QueryError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["DEFAULT_ZLIB_LEVEL", "PIECE_BYTES", "bounded", "choose", "decoded", "encoder", "zstd"]

PIECE_BYTES: Final = 1 << 20
DEFAULT_ZLIB_LEVEL: Final = 3


class Encoder(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Decoder(Protocol):
    """One frame. ``decompress`` returns at most ``max_length`` bytes; more are there until
    ``needs_input``.
    """

    def decompress(self, data: bytes, max_length: int) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


class _Lz4:
    def __init__(self) -> None:
        self._frame = lz4.frame.LZ4FrameCompressor()
        self._head: bytes = self._frame.begin()

    def compress(self, data: bytes, /) -> bytes:
        head, self._head = self._head, b""
        return head + bytes(self._frame.compress(data))

    def flush(self) -> bytes:
        return self._head + bytes(self._frame.flush())


class _Inflate:
    """zlib's decompressor with the interface that the others have."""

    def __init__(self, window_bits: int) -> None:
        self._zlib = zlib.decompressobj(window_bits)
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        plain = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = len(plain) < max_length and not self._zlib.unconsumed_tail
        return plain

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


_ENCODERS: Final[dict[str, Callable[[int], Encoder]]] = {  # in ClickHouse's order of preference
    "zstd": lambda _: zstandard.ZstdCompressor(level=1).compressobj(),
    "lz4": lambda _: _Lz4(),
    "gzip": lambda level: zlib.compressobj(level, zlib.DEFLATED, 31),
    "deflate": lambda level: zlib.compressobj(level, zlib.DEFLATED, 15),
}
_DECODERS: Final[dict[str, Callable[[], Decoder]]] = {
    "zstd": zstd.ZstdDecompressor,
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "gzip": lambda: _Inflate(31),
    "x-gzip": lambda: _Inflate(31),
    "deflate": lambda: _Inflate(15),
}
_CORRUPT = (zlib.error, zstd.ZstdError, RuntimeError, EOFError)


def choose(accept_encoding: str) -> str | None:
    """The encoding to answer with; None for as it is."""
    wanted = {
        name.strip().lower()
        for name, _, weight in (part.partition(";") for part in accept_encoding.split(","))
        if weight.replace(" ", "") not in ("q=0", "q=0.0")
    }
    return next((name for name in _ENCODERS if name in wanted), None)


def encoder(name: str, zlib_level: int = DEFAULT_ZLIB_LEVEL) -> Encoder:
    return _ENCODERS[name](zlib_level)


async def decoded(body: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """The body without its encoding, in pieces of at most 1 MiB; several frames are one body.

    Raises:
        QueryError: an encoding that is not known; data that is corrupt or ends in mid-frame.
    """
    if encoding.lower() in ("", "identity"):
        async for piece in body:
            yield piece
        return
    make = _DECODERS.get(encoding.lower())
    if make is None:
        raise QueryError.of(
            "UNKNOWN_COMPRESSION_METHOD",
            f"Unknown compression method '{encoding}': known are {', '.join(_DECODERS)}",
        )
    frame: Decoder | None = None
    async for data in body:
        rest = data
        while rest or (frame is not None and not frame.needs_input):
            frame = make() if frame is None else frame
            plain = _decompress(frame, rest, encoding)
            rest = b""
            if frame.eof:
                rest, frame = bytes(frame.unused_data or b""), None
            if plain:
                yield plain
            else:  # a body of empty frames is long at work, and others are to be served
                await asyncio.sleep(0)
    if frame is not None:
        raise QueryError.of("CANNOT_DECOMPRESS", f"The {encoding} body ends in mid-frame")


def _decompress(frame: Decoder, data: bytes, encoding: str) -> bytes:
    try:
        return bytes(frame.decompress(data, PIECE_BYTES))
    except _CORRUPT as exc:
        raise QueryError.of(
            "CANNOT_DECOMPRESS", f"Cannot decompress the {encoding} body: {exc}"
        ) from exc


async def bounded(body: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    """The body as it is.

    Raises:
        QueryError: QUERY_IS_TOO_LARGE as soon as there are more than ``max_bytes``.
    """
    size = 0
    async for piece in body:
        size += len(piece)
        if size > max_bytes:
            raise QueryError.of(
                "QUERY_IS_TOO_LARGE",
                f"The body has more than {max_bytes} bytes after decompression. Send it in several "
                "requests, or start the endpoint with a larger --max-body-bytes (for formats that "
                "are read whole, such as Parquet: --max-query-memory-bytes)",
            )
        yield piece

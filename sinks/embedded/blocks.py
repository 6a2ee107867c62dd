"""ClickHouse's own compressed blocks: what ``compress=1`` writes and ``decompress=1`` reads.

A block is a CityHash128 (v1.0.2, 16 bytes) of what follows, the method (1 byte), the size of the
header of 9 bytes with the data (UInt32), the size of the decompressed data (UInt32), and the data.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterator
from typing import Final

import lz4.block
from clickhouse_cityhash.cityhash import CityHash128

from sinks.embedded.compression import PIECE_BYTES, zstd
from sinks.embedded.errors import QueryError

_NONE, _LZ4, _ZSTD = 0x02, 0x82, 0x90
_METHODS: Final = {_NONE: "NONE", _LZ4: "LZ4", _ZSTD: "ZSTD"}
_CHECKSUM = struct.Struct("<QQ")
_HEADER = struct.Struct("<BII")
_START_BYTES: Final = _CHECKSUM.size + _HEADER.size
_LZ4_MAX_RATIO: Final = 255
MAX_BLOCK_BYTES: Final = 256 << 20
_MASK: Final = (1 << 64) - 1


class BlockEncoder:
    """Writes LZ4 blocks of at most 1 MiB each, as ClickHouse's server does."""

    def compress(self, data: bytes, /) -> bytes:
        return b"".join(
            encode(data[at : at + PIECE_BYTES]) for at in range(0, len(data), PIECE_BYTES)
        )

    def flush(self) -> bytes:
        return b""


def encode(plain: bytes) -> bytes:
    """One LZ4 block."""
    data = bytes(lz4.block.compress(plain, store_size=False))
    block = _HEADER.pack(_LZ4, _HEADER.size + len(data), len(plain)) + data
    return _checksum(block) + block


async def decoded(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of the blocks, in pieces of at most 1 MiB.

    Raises:
        QueryError: a checksum that is not that of its block, a method other than NONE, LZ4 and
            ZSTD, sizes that can't be right, more than 256 MiB in a block, or a body that ends
            inside a block.
    """
    held = bytearray()
    needed = _START_BYTES
    async for piece in body:
        held += piece
        while len(held) >= needed:
            method, with_header, size = _HEADER.unpack_from(held, _CHECKSUM.size)
            _check_sizes(method, with_header, size)
            needed = _CHECKSUM.size + with_header
            if len(held) < needed:
                break
            block = bytes(held[:needed])
            del held[:needed]
            needed = _START_BYTES
            for plain in _decode(block, method, size):
                yield plain
    if held:
        raise _corrupt(f"the body ends inside a block, after {len(held)} of its bytes")


def _check_sizes(method: int, with_header: int, size: int) -> None:
    """Refuse a block by its header, before any memory is taken for its data."""
    if method not in _METHODS:
        raise QueryError.of(
            "UNKNOWN_COMPRESSION_METHOD",
            f"Unknown compression method 0x{method:02x} of a block: known are "
            f"{', '.join(_METHODS.values())}",
        )
    data = with_header - _HEADER.size
    if data < 0:
        raise _corrupt(f"a block claims {with_header} bytes with its header of {_HEADER.size}")
    if max(size, with_header) > MAX_BLOCK_BYTES:
        raise QueryError.of(
            "TOO_LARGE_SIZE_COMPRESSED",
            f"A compressed block of {max(size, with_header)} bytes is larger than the maximum of "
            f"{MAX_BLOCK_BYTES}: send smaller blocks",
        )
    if (method == _NONE and size != data) or (method == _LZ4 and size > data * _LZ4_MAX_RATIO):
        raise _corrupt(f"{data} bytes of a {_METHODS[method]} block can't become {size}")


def _decode(block: bytes, method: int, size: int) -> Iterator[bytes]:
    if _checksum(block[_CHECKSUM.size :]) != block[: _CHECKSUM.size]:
        raise QueryError.of(
            "CHECKSUM_DOESNT_MATCH",
            "Checksum of a compressed block doesn't match: the body is corrupted",
        )
    data = block[_START_BYTES:]
    if method == _ZSTD:
        yield from _unzstd(data, size)
        return
    if method == _LZ4:
        try:
            data = lz4.block.decompress(data, uncompressed_size=size)
        except (lz4.block.LZ4BlockError, ValueError, MemoryError) as exc:
            raise _corrupt(f"an LZ4 block: {exc}") from exc
    if len(data) != size:
        raise _corrupt(f"a block claims {size} bytes and has {len(data)}")
    for at in range(0, len(data), PIECE_BYTES):
        yield data[at : at + PIECE_BYTES]


def _unzstd(data: bytes, size: int) -> Iterator[bytes]:
    frame = zstd.ZstdDecompressor()
    seen = 0
    while not frame.eof:
        try:
            plain = frame.decompress(data, PIECE_BYTES)
        except (zstd.ZstdError, EOFError) as exc:
            raise _corrupt(f"a ZSTD block: {exc}") from exc
        data = b""
        seen += len(plain)
        if seen > size or (not plain and not frame.eof):
            raise _corrupt(f"a ZSTD block claims {size} bytes and has {seen}")
        if plain:
            yield plain
    if seen != size or frame.unused_data:
        raise _corrupt(f"a ZSTD block claims {size} bytes and has {seen}")


def _checksum(data: bytes) -> bytes:
    number = CityHash128(data)
    return _CHECKSUM.pack(number >> 64, number & _MASK)


def _corrupt(what: str) -> QueryError:
    return QueryError.of("CANNOT_DECOMPRESS", f"Cannot decompress the body: {what}")

"""The endpoint's decompression: right, and never more than a piece of 1 MiB at a time."""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from collections.abc import AsyncIterator, Callable

import lz4.frame
import pytest
import zstandard
from clickhouse_cityhash.cityhash import CityHash128

from sinks.embedded import blocks, compression
from sinks.embedded.compression import PIECE_BYTES
from sinks.embedded.errors import QueryError

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.ZstdCompressor(level=3).compress,
    "lz4": lz4.frame.compress,
}
ZEROS = bytes(64 << 20)


async def pieces(data: bytes, size: int = 1 << 20) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def gather(body: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in body])


def in_block(method: int, data: bytes, size: int) -> bytes:
    block = struct.pack("<BII", method, 9 + len(data), size) + data
    number = CityHash128(block)
    return struct.pack("<QQ", number >> 64, number & (1 << 64) - 1) + block


@pytest.mark.parametrize("encoding", COMPRESS)
async def test_a_small_body_that_becomes_a_large_one_comes_in_small_pieces(encoding: str) -> None:
    packed = COMPRESS[encoding](ZEROS)
    assert len(packed) < len(ZEROS) / 200
    sizes = [len(p) async for p in compression.decoded(pieces(packed), encoding)]
    assert (sum(sizes), max(sizes)) == (len(ZEROS), PIECE_BYTES)


@pytest.mark.parametrize("encoding", COMPRESS)
@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_a_body_is_what_was_compressed_however_it_is_cut(encoding: str, size: int) -> None:
    data = random.Random(size).randbytes(30_000) + bytes(3_000_000 if size > 7 else 3_000)
    packed = COMPRESS[encoding](data)
    assert await gather(compression.decoded(pieces(packed, size), encoding)) == data


@pytest.mark.parametrize("encoding", [e for e in COMPRESS if e != "deflate"])
async def test_frames_after_one_another_are_one_body(encoding: str) -> None:
    packed = b"".join(COMPRESS[encoding](part) for part in (b"one", bytes(PIECE_BYTES), b"three"))
    plain = await gather(compression.decoded(pieces(packed), encoding))
    assert plain == b"one" + bytes(PIECE_BYTES) + b"three"


async def test_a_body_ends_at_its_bound() -> None:
    assert await gather(compression.bounded(pieces(bytes(100)), 100)) == bytes(100)
    with pytest.raises(QueryError, match="more than 99 bytes") as caught:
        await gather(compression.bounded(pieces(bytes(100)), 99))
    assert caught.value.status == 413


# ── ClickHouse's own blocks ──────────────────────────────────────────────────────────────────

KNOWN = bytes.fromhex("de79cf087fb635049db816df195b016b820c0000000200000020310a")
"""``1\\n`` as ClickHouse's own clients read it."""


async def test_a_block_is_as_clickhouse_writes_it() -> None:
    assert blocks.encode(b"1\n") == KNOWN
    assert await gather(blocks.decoded(pieces(KNOWN))) == b"1\n"


@pytest.mark.parametrize("size", [1, 24, 25, 26, 1000, 1 << 20])
async def test_blocks_are_read_however_they_are_cut(size: int) -> None:
    rest = random.Random(1).randbytes(5000)
    packed = blocks.BlockEncoder().compress(rest + bytes(3 << 20)) if size > 26 else b""
    packed += in_block(0x02, rest, len(rest)) + in_block(
        0x90, zstandard.ZstdCompressor().compress(rest), len(rest)
    )
    expected = (rest + bytes(3 << 20) if size > 26 else b"") + rest * 2
    assert await gather(blocks.decoded(pieces(packed, size))) == expected


async def test_blocks_of_any_method_come_in_small_pieces() -> None:
    zstd = in_block(0x90, zstandard.ZstdCompressor().compress(ZEROS), len(ZEROS))
    whole = blocks.encode(ZEROS)
    for packed in (zstd, whole):
        sizes = [len(p) async for p in blocks.decoded(pieces(packed))]
        assert (sum(sizes), max(sizes)) == (len(ZEROS), PIECE_BYTES)


@pytest.mark.parametrize(
    ("block", "name"),
    [
        (KNOWN[:-1], "CANNOT_DECOMPRESS"),
        (KNOWN[:20], "CANNOT_DECOMPRESS"),
        (KNOWN[:-1] + b"x", "CHECKSUM_DOESNT_MATCH"),
        (b"x" + KNOWN[1:], "CHECKSUM_DOESNT_MATCH"),
        (in_block(0x91, b"", 1), "UNKNOWN_COMPRESSION_METHOD"),
        (in_block(0x82, b"\x20ab", 3), "CANNOT_DECOMPRESS"),
        (in_block(0x82, b"\x20ab", 1), "CANNOT_DECOMPRESS"),
        (in_block(0x82, b"\xff" * 10, 2500), "CANNOT_DECOMPRESS"),
        (in_block(0x82, b"\x20ab", 256 << 20), "CANNOT_DECOMPRESS"),
        (in_block(0x82, b"\x20ab", (256 << 20) + 1), "TOO_LARGE_SIZE_COMPRESSED"),
        (in_block(0x90, b"\x20ab", (1 << 32) - 1), "TOO_LARGE_SIZE_COMPRESSED"),
        (in_block(0x90, zstandard.ZstdCompressor().compress(ZEROS), 5), "CANNOT_DECOMPRESS"),
        (in_block(0x90, zstandard.ZstdCompressor().compress(b"12345"), 6), "CANNOT_DECOMPRESS"),
        (in_block(0x90, b"not zstd", 6), "CANNOT_DECOMPRESS"),
        (in_block(0x02, b"12345", 6), "CANNOT_DECOMPRESS"),
        (struct.pack("<QQBII", 0, 0, 0x82, 3, 1), "CANNOT_DECOMPRESS"),
    ],
)
async def test_a_block_that_can_not_be_right_is_refused(block: bytes, name: str) -> None:
    with pytest.raises(QueryError) as caught:
        await gather(blocks.decoded(pieces(block)))
    assert caught.value.name == name

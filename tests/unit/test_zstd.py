"""zstd with contexts that are kept says what aiokafka's says."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard
from aiokafka.codec import zstd_decode, zstd_encode
from aiokafka.record import default_records
from hypothesis import given
from hypothesis import strategies as st

from streams.zstd import LARGEST, compress, decompress, use_quick_zstd

TEXT = b"what does a token cost us, whose was it, " * 100


@given(st.binary(max_size=2_000))
def test_what_one_compresses_the_other_reads(payload: bytes) -> None:
    assert decompress(compress(payload)) == payload
    assert zstd_decode(compress(payload)) == payload
    assert decompress(zstd_encode(payload)) == payload
    assert decompress(compress(memoryview(payload))) == payload  # type: ignore[arg-type]


def without_size(payload: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(payload)


@pytest.mark.parametrize(
    "packed",
    [
        without_size(TEXT),
        compress(TEXT[:1_000]) + compress(TEXT[1_000:]),
        compress(TEXT) + without_size(b""),
    ],
    ids=["no size", "two frames", "an empty one behind"],
)
def test_other_writers_frames_are_read_as_well(packed: bytes) -> None:
    assert decompress(packed) == TEXT


def claims(size: int) -> bytes:
    """A frame that says it holds so much, and does not: RFC 8878, 3.1.1."""
    return b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little") + b"\x01\x00\x00"


@pytest.mark.parametrize(
    "broken",
    [b"", b"\x28\xb5\x2f\xfd", compress(TEXT)[:-3], b"x" * 50, claims(LARGEST), claims(2**62)],
    ids=["nothing", "a head", "cut", "no zstd", "claims much", "claims all there is"],
)
def test_what_is_broken_is_as_broken_as_for_the_client(broken: bytes) -> None:
    assert outcome(zstd_decode, broken) == outcome(decompress, broken)


def outcome(read: Callable[[bytes], bytes], payload: bytes) -> object:
    try:
        return read(payload)
    except Exception as exc:  # noqa: BLE001  # whatever the client raises
        return type(exc), str(exc)


def test_threads_do_not_share_a_context() -> None:
    payloads = [os.urandom(200_000) + TEXT * n for n in range(8)]
    start = threading.Barrier(8)

    def there_and_back(payload: bytes) -> bool:
        start.wait()
        return all(decompress(compress(payload)) == payload for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, payloads))


def test_the_clients_of_a_process_use_it() -> None:
    use_quick_zstd()
    builder = default_records.DefaultRecordBatchBuilder(2, 4, 0, -1, -1, 0, 10**6)
    for n in range(10):
        builder.append(n, 0, None, TEXT, [])
    batch = default_records.DefaultRecordBatch(bytes(builder.build()))
    assert [record.value for record in batch] == [TEXT] * 10
    assert builder.size() < 1_000

"""zstd for Kafka's clients, with contexts that are kept, and at the level that pays for many short
columns of numbers and ids.

aiokafka makes a context for each batch, and compresses at level 3, for which it has no setting. At
level 1 lines of costs take less than half the time, and no more bytes.
"""

from __future__ import annotations

import threading
from functools import cached_property
from importlib import import_module
from typing import Any

import zstandard
from aiokafka.codec import zstd_decode
from aiokafka.record import default_records

LEVEL = 1
LARGEST = 64 * 1024**2
"""A frame that says it holds more gets its memory as it is read."""


class _Contexts(threading.local):
    """A thread's own: each is good for one call at a time."""

    @cached_property
    def compressor(self) -> zstandard.ZstdCompressor:
        return zstandard.ZstdCompressor(level=LEVEL)

    @cached_property
    def decompressor(self) -> zstandard.ZstdDecompressor:
        return zstandard.ZstdDecompressor()


_contexts = _Contexts()


def use_quick_zstd() -> None:
    """For every producer and consumer of this process, from then on."""
    modules: list[Any] = [default_records]
    if not default_records.NO_EXTENSIONS:
        modules.append(import_module("aiokafka.record._crecords.default_records"))
    for module in modules:
        module.zstd_encode, module.zstd_decode = compress, decompress


def compress(payload: Any) -> bytes:
    return _contexts.compressor.compress(payload)


def decompress(payload: bytes) -> bytes:
    """Raises what aiokafka raises."""
    try:
        if 0 < zstandard.frame_content_size(payload) <= LARGEST:
            return _contexts.decompressor.decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError:  # Broken, or several frames: the client knows.
        pass
    decoded: bytes = zstd_decode(payload)
    return decoded

"""Kafka's own choice of a partition by a record's key, remembered for keys that come often."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from aiokafka.partitioner import DefaultPartitioner, murmur2

_default = DefaultPartitioner()


def partition_of(key: bytes | None, all_: Sequence[int], available: Sequence[int]) -> int:
    """As aiokafka's and Java's clients choose."""
    if len(all_) == 1:
        return all_[0]
    if key is None:
        return int(_default(None, all_, available))
    return all_[_place(key, len(all_))]


@lru_cache(16_384)
def _place(key: bytes, count: int) -> int:
    return int((murmur2(key) & 0x7FFFFFFF) % count)

"""A key's partition is the one that every Kafka client gives it."""

from __future__ import annotations

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from streams.partitioner import partition_of


@given(st.binary(min_size=1, max_size=40), st.integers(1, 12))
def test_it_is_the_default_one(key: bytes, count: int) -> None:
    all_ = list(range(count))
    assert partition_of(key, all_, all_) == DefaultPartitioner()(key, all_, all_)


def test_without_a_key_it_is_one_of_those_that_there_are() -> None:
    assert {partition_of(None, [0, 1, 2], [0, 1, 2]) for _ in range(200)} == {0, 1, 2}

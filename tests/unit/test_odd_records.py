"""A header's name that is not UTF-8 is read, and everything else as aiokafka reads it."""

from __future__ import annotations

import pytest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.memory_records import MemoryRecords

from benchmarks.fuzz.kinds import OddName
from streams.odd_records import OddRecords

ODD = OddName("x-\\xff")
Record = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def batch(odd_at: int | None, codec: int = 0) -> bytes:
    """Five records; the header of one of them may have an odd name."""
    builder = _DefaultRecordBatchBuilderPy(
        magic=2,
        compression_type=codec,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=0,
        batch_size=10**6,
    )
    for n in range(5):
        name = ODD if n == odd_at else "größer"
        headers = [("a", b"1"), (name, None), ("b", b"\xff")]
        builder.append(n, timestamp=n, key=None, value=b"%d" % n * 300, headers=headers)
    return bytes(builder.build())


def read(raw: bytes, how: type = OddRecords) -> list[list[Record]]:
    """The records of each batch, as the fetcher goes through them: none twice."""
    records, found = how(raw), []
    while records.has_next():
        taken, next_batch = [], records.next_batch()
        assert next_batch.validate_crc()
        assert not next_batch.is_control_batch
        for record in next_batch:
            if record.offset >= len(taken):
                taken.append((record.offset, record.key, record.value, list(record.headers)))
        assert next_batch.next_offset == 5
        found.append(taken)
    return found


@pytest.mark.parametrize("codec", [0, 1, 3])
@pytest.mark.parametrize("odd_at", range(5))
def test_an_odd_name_is_read_with_its_bytes_written_out(odd_at: int, codec: int) -> None:
    raw = batch(None, codec) + batch(odd_at, codec) + batch(None, codec)
    with pytest.raises(UnicodeDecodeError):
        read(raw, MemoryRecords)
    before, odd, after = read(raw)
    assert [record[3][1][0] for record in odd] == [
        "x-\\xff" if n == odd_at else "größer" for n in range(5)
    ]
    assert before == after
    assert [record[:3] for record in odd] == [record[:3] for record in before]


@pytest.mark.parametrize("codec", [0, 1, 3])
def test_without_one_everything_is_as_it_was(codec: int) -> None:
    raw = batch(None, codec) * 3
    assert read(raw) == read(raw, MemoryRecords)
    assert read(b"") == []
    assert read(raw[:-10]) == read(raw, MemoryRecords)[:2]

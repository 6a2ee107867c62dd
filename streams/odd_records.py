"""Messages whose header names are not UTF-8, which Kafka takes and aiokafka can't read.

The error would come again at every fetch, so that no consumer would ever get past such a message.
With :func:`read_odd_records` its bytes that are no text are written as ``\\xNN`` in the name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy


def read_odd_records() -> None:
    """For every consumer of this process, from then on. Everything else is read as before."""
    fetcher.MemoryRecords = OddRecords


class OddRecords(_MemoryRecordsPy):  # type: ignore[misc]  # aiokafka has no types
    """The batches of one fetch."""

    def next_batch(self, *args: Any, **kwargs: Any) -> Any:
        raw = self._next_slice
        batch = super().next_batch(*args, **kwargs)
        return batch if batch is None or batch.magic < 2 else _Batch(batch, raw)


class _Batch:
    """As aiokafka has it, but for the iteration."""

    def __init__(self, batch: Any, raw: Any) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        """After an error from the beginning once more: the fetcher knows what it had already."""
        try:
            yield from self._batch
        except UnicodeDecodeError:
            yield from _OddBatch(self._raw)


class _OddBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's reader in Python, over bytes that decode to text whatever they are."""

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer: bytearray = _Decodable(self._buffer)


class _Decodable(bytearray):
    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _Decodable(found) if isinstance(at, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)

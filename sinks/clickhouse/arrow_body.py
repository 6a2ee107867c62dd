"""Tables as the bytes of Arrow's file format, in memory that is kept from one insert to the next.

Some twenty megabytes for each insert, asked of the kernel anew and given back each time, cost ten
times as much as to fill them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_CODECS = ("lz4", "zstd")
_SLACK = 1.02
"""What does not compress grows by less."""
_SLACK_BYTES = 256 * 1024


class ArrowBody:
    """Keeps as much as the largest took. Not for several threads at once."""

    def __init__(self) -> None:
        self._room: NDArray[np.uint8] = np.empty(0, np.uint8)

    def of(self, table: Any, compression: str | None = None) -> memoryview:
        """Good until the next call. Arrow has "lz4" and "zstd"; any other compression is none."""
        self._make_room(_size_of(table))
        sink = pa.FixedSizeBufferWriter(pa.py_buffer(self._room))
        codec = compression if compression in _CODECS else None
        options = pa.ipc.IpcWriteOptions(compression=codec)
        with pa.RecordBatchFileWriter(sink, table.schema, options=options) as writer:
            writer.write(table)
        return self._room.data[: sink.tell()]

    def _make_room(self, size: int) -> None:
        if size > len(self._room):
            self._room = np.empty(size, np.uint8)


def _size_of(table: Any) -> int:
    """At most, whatever its compression makes of it."""
    sink = pa.MockOutputStream()
    with pa.RecordBatchFileWriter(sink, table.schema) as writer:
        writer.write(table)
    return int(sink.size() * _SLACK) + _SLACK_BYTES

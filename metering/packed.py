"""A column of texts that are mostly distinct, one behind the other, with no object for any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from metering.scanner import gathered, without_frames

_texts = msgspec.json.Decoder(list[str]).decode


@dataclass(frozen=True, slots=True)
class Packed:
    """Row ``n`` is ``data[offsets[n] : offsets[n + 1]]``: a text in JSON and a comma."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    has_escapes: bool

    def tolist(self) -> list[Any]:
        return _texts(b"".join(self.json(0, len(self.offsets) - 1)))

    def take(self, rows: NDArray[Any]) -> Packed:
        data, offsets = gathered(self.data, self.offsets, rows.astype(np.int64, copy=False))
        return Packed(data, offsets, self.has_escapes)

    def json(self, start: int, stop: int) -> tuple[bytes, memoryview, bytes]:
        """The list of the rows from one to before another, in pieces."""
        first, end = int(self.offsets[start]), int(self.offsets[stop])
        return b"[", self.data[first : max(first, end - 1)].data, b"]"

    def utf8(self) -> tuple[NDArray[np.uint8], NDArray[np.int32]] | None:
        """The texts themselves and where each begins; ``None``: some have escapes."""
        return None if self.has_escapes else without_frames(self.data, self.offsets, 1, 2)

"""What was emitted, on disk before it is emitted: all that the expectation is made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.stream_faults.world import BATCH_SIZE, Source

LOGGED, FAILED, LATE = 1, 2, 4
"""Flags: through the usage log, so that its shares are still to be divided; every request ended in
an error; far too late."""
BATCH = np.dtype([
    ("source", "<u2"), ("sequence", "<u4"), ("flags", "u1"),
    ("end_ns", "<i8"), ("sent_ns", "<i8"), ("gpu_ns", "<i8"),
])  # fmt: skip
REQUEST = np.dtype([
    ("tenant", "u1"), ("input_tokens", "<u4"), ("output_tokens", "<u4"),
    ("gpu_ns", "<i8"), ("input_gpu_ns", "<i8"),
])  # fmt: skip
"""``BATCH_SIZE`` of them to a batch; of one that was logged both times are 0."""
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Emitted:
    """``requests`` lie in the order of ``batches``. Prices changed at ``change_s`` (epoch)."""

    sources: Sequence[Source]
    batches: Array
    requests: Array
    change_s: int


class Journal:
    def __init__(self, folder: Path, change_s: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._change_s = change_s
        self._batches = (folder / "batches").open("wb")
        self._requests = (folder / "requests").open("wb")
        self.sources: list[Source] = []
        self.written = 0

    def source(self, source: Source) -> int:
        """Its number from now on."""
        self.sources.append(source)
        return len(self.sources) - 1

    def note(self, batch: Array, requests: Array) -> None:
        """One batch, of ``BATCH``, and its requests, of ``REQUEST``."""
        assert len(requests) == BATCH_SIZE  # noqa: S101
        self._batches.write(batch.tobytes())
        self._requests.write(requests.tobytes())
        self.written += 1

    def close(self) -> None:
        self._batches.close()
        self._requests.close()
        document = {"change_s": self._change_s, "sources": [asdict(s) for s in self.sources]}
        (self._folder / "sources.json").write_text(json.dumps(document))


def read(folder: Path) -> Emitted:
    document = json.loads((folder / "sources.json").read_text())
    return Emitted(
        [Source(**source) for source in document["sources"]],
        np.fromfile(folder / "batches", BATCH),
        np.fromfile(folder / "requests", REQUEST),
        document["change_s"],
    )

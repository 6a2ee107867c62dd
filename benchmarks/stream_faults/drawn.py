"""Batches by chance, from a seed."""

from __future__ import annotations

import numpy as np

from benchmarks.stream_faults.journal import REQUEST, Array
from benchmarks.stream_faults.world import BATCH_SIZE, TENANTS

AHEAD = 256
SHORTEST_NS, LONGEST_NS = 20_000_000, 400_000_000


class Drawn:
    """Requests of one batch after the other, with GPU times of their own."""

    def __init__(self, seed: int) -> None:
        self._drawn = np.random.default_rng(seed)
        self._at = AHEAD
        self._requests = np.zeros(0, REQUEST)

    def batch(self) -> Array:
        if self._at == AHEAD:
            self._requests, self._at = self._draw(AHEAD * BATCH_SIZE), 0
        begin = self._at * BATCH_SIZE
        self._at += 1
        return self._requests[begin : begin + BATCH_SIZE]

    def whole_ns(self) -> int:
        return int(self._drawn.integers(SHORTEST_NS, LONGEST_NS))

    def _draw(self, count: int) -> Array:
        drawn = self._drawn
        requests = np.zeros(count, REQUEST)
        requests["tenant"] = drawn.integers(0, len(TENANTS), count)
        requests["input_tokens"] = drawn.lognormal(6.2, 0.9, count).astype(np.int64) + 1
        requests["output_tokens"] = drawn.lognormal(4.9, 0.7, count).astype(np.int64) + 1
        requests["gpu_ns"] = drawn.integers(
            SHORTEST_NS // BATCH_SIZE, LONGEST_NS // BATCH_SIZE, count
        )
        requests["input_gpu_ns"] = drawn.integers(0, requests["gpu_ns"] + 1)
        return requests

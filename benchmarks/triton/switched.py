"""Models whose metering can be switched while they run; imported in Triton's stub alone.

Off, ``execute`` does what an unmetered model would: serve and answer. Either way it reads its
batch's switch and notes its times, so what is compared differs by metering alone.
"""

from __future__ import annotations

import math
import os
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmarks.triton.board import FOLDER_VARIABLE, Board
from metering.usage import Operation
from triton_models.emitter import backend
from triton_models.emitter.metered import MeteredModel, Served

SPIN_MS = 18
_PROBE_ROUNDS = 100
_TEXT = (
    "what does a token cost us whose was it and why did that change at seven minutes past two a "
    "batch of requests is served together and each of them pays for its part of the time and the "
    "sum of the parts is the whole to the last nanosecond whatever else the server does meanwhile"
)
_PROBES = 50
"""Batches; they are over before the first block."""


class Switched(MeteredModel):
    """Reads and answers as the simulated Llamas do."""

    operation: ClassVar[Operation] = "chat"

    def load(self) -> None:
        self._board = Board.open(Path(os.environ[FOLDER_VARIABLE]) / self.facts.model)
        self._serve_ns = 0

    @abstractmethod
    def work(self) -> None:
        """What a batch takes, whatever is in it."""

    def execute(self, requests: Sequence[backend.Request]) -> list[object]:
        on = self._board.on
        begun_ns = time.monotonic_ns()
        responses = super().execute(requests) if on else self._unmetered(requests)
        ended_ns = time.monotonic_ns()
        self._board.note(on, len(requests), begun_ns, ended_ns, self._serve_ns)
        return responses

    def serve(self, requests: Sequence[backend.Request]) -> list[Served]:
        begun_ns = time.monotonic_ns()
        asked = [
            [
                int(backend.tensor(r, name)[0, 0])
                for name in ("INPUT_TOKENS", "CACHED_INPUT_TOKENS", "OUTPUT_TOKENS")
            ]
            for r in requests
        ]
        self.work()
        served = [
            Served(
                outputs={
                    "INPUT_TOKENS": np.array([[given]], np.int32),
                    "OUTPUT_TOKENS": np.array([[output]], np.int32),
                },
                input_tokens=given,
                cached_input_tokens=cached,
                output_tokens=output,
            )
            for given, cached, output in asked
        ]
        self._serve_ns = time.monotonic_ns() - begun_ns
        return served

    def _unmetered(self, requests: Sequence[backend.Request]) -> list[object]:
        return [backend.answer(s.outputs) for s in self.serve(requests)]


class Waiting(Switched):
    """As on an accelerator: the host waits, and the interpreter is free for others."""

    wait_s: ClassVar[float]

    def work(self) -> None:
        time.sleep(self.wait_s)


class Spinning(Switched):
    """Holds the interpreter: ``SPIN_MS`` of pure Python at the best speed of its first batches,
    then as much work for every batch, so that whatever is in its way shows. How fast it is while
    it is loaded says little: the server loads other models then."""

    def load(self) -> None:
        super().load()
        self._probes = _PROBES
        self._rounds = _PROBE_ROUNDS
        self._fastest = math.inf  # ns of a round

    def work(self) -> None:
        if not self._probes:
            _spin(self._rounds)
            return
        self._probes -= 1
        self._fastest = min(self._fastest, _taken_ns(self._rounds) / self._rounds)
        self._rounds = math.ceil(SPIN_MS * 10**6 / self._fastest)


def _taken_ns(rounds: int) -> int:
    begun_ns = time.thread_time_ns()
    _spin(rounds)
    return max(1, time.thread_time_ns() - begun_ns)


def _spin(rounds: int) -> int:
    """Words are cut, counted and sorted, as by a tokenizer in Python. Objects of many sizes come
    and go: a loop that makes and frees one over and over measures where the allocator's pool ends.
    """
    found = 0
    for n in range(rounds):
        counts: dict[str, int] = {}
        for word in _TEXT[n % 7 :].split():
            counts[word] = counts.get(word, 0) + 1
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        found += len(",".join(word for word, _ in ranked[: 3 + n % 5]))
    return found

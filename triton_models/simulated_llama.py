"""A model without weights: it waits as long as a Llama on an H100 would take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from metering.errors import MeteringError
from metering.usage import Operation
from triton_models.emitter import backend
from triton_models.emitter.metered import MeteredModel, Served
from triton_models.simulation import LlamaTiming, SimulatedRequest


class SimulatedLlama(MeteredModel):
    """Sleeps ``timing.batch_ns / speedup`` per batch, whatever the texts would have been."""

    operation: ClassVar[Operation] = "chat"
    timing: ClassVar[LlamaTiming]

    def load(self) -> None:
        """Nothing to load."""

    def serve(self, requests: Sequence[backend.Request]) -> list[Served]:
        start_ns = time.monotonic_ns()
        asked = [self._parse(r) for r in requests]
        sequences = [s for rows in asked if not isinstance(rows, str) for s in rows]
        prefill_ns, decode_ns = self.timing.phases_ns(sequences)
        until_ns = start_ns + (prefill_ns + decode_ns) // self.facts.speedup
        if (left_ns := until_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns / 1e9)
        self.tell_phases(
            prefill_ns=prefill_ns // self.facts.speedup, decode_ns=decode_ns // self.facts.speedup
        )
        return [Served(error=rows) if isinstance(rows, str) else _answer(rows) for rows in asked]

    def _parse(self, request: backend.Request) -> list[SimulatedRequest] | str:
        names = ("INPUT_TOKENS", "CACHED_INPUT_TOKENS", "OUTPUT_TOKENS")
        columns = [backend.tensor(request, name).reshape(-1).tolist() for name in names]
        rows = [SimulatedRequest(*row) for row in zip(*columns, strict=True)]
        try:
            for row in rows:
                self.timing.check(row)
        except MeteringError as exc:
            return str(exc)
        return rows


def _answer(rows: Sequence[SimulatedRequest]) -> Served:
    return Served(
        outputs={
            "INPUT_TOKENS": np.array([[r.input_tokens] for r in rows], np.int32),
            "OUTPUT_TOKENS": np.array([[r.output_tokens] for r in rows], np.int32),
        },
        input_tokens=sum(r.input_tokens for r in rows),
        cached_input_tokens=sum(r.cached_input_tokens for r in rows),
        output_tokens=sum(r.output_tokens for r in rows),
        row_tokens=_row_tokens(rows) if len(rows) > 1 else (),
    )


def _row_tokens(rows: Sequence[SimulatedRequest]) -> list[tuple[int, int]]:
    return [(r.input_tokens - r.cached_input_tokens, r.output_tokens) for r in rows]

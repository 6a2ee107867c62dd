"""The one wrapper around ``execute``: every model is metered by it, none meters itself."""

from __future__ import annotations

import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from metering.usage import Operation, UsageBatch
from triton_models.emitter import backend
from triton_models.emitter.facts import Facts, facts_of, parameters_of, this_process, warm_ups_of
from triton_models.emitter.gateway import NOBODY, gate_of
from triton_models.emitter.identity import Identity, identity_of
from triton_models.emitter.log import UsageLog
from triton_models.emitter.record import Counted, usage_of


@dataclass(frozen=True, slots=True)
class Served:
    """A model's answer to one request, and what it took, summed over the request's rows.

    With an ``error`` the client gets that message instead of ``outputs``; ``by_client`` says that
    the fault is the client's.
    """

    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    error: str | None = None
    by_client: bool = False
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


class MeteredModel(ABC):
    """Base of every ``TritonPythonModel``: implement ``load`` and ``serve``, nothing else.

    A batch is logged before ``execute`` returns, so an answered request is a logged one. What goes
    wrong with metering is counted and logged, and leaves a gap in the sequence; it never fails
    inference. What goes wrong with the model fails its batch, as it would without this wrapper,
    and is logged as used time with status ``error``.
    """

    operation: ClassVar[Operation]
    facts: Facts
    config: dict[str, Any]
    lost_batches = 0

    @abstractmethod
    def load(self) -> None:
        """Called once, when ``self.facts`` and ``self.config`` (config.pbtxt as JSON) are set."""

    @abstractmethod
    def serve(self, requests: Sequence[backend.Request]) -> list[Served]:
        """Answer a batch, in the order of its requests; an exception fails all of them."""

    def initialize(self, args: dict[str, str]) -> None:
        self.config = json.loads(args["model_config"])
        self.facts = facts_of(args, os.environ, this_process())
        self._gate = gate_of(
            parameters_of(self.config), os.environ, backend.log_error, warm_ups_of(self.config)
        )
        log_dir = Path(os.environ.get("METER_LOG_DIR", ".meter/usage-log"))
        self._log = UsageLog.from_env(log_dir, self.facts.source, os.environ)
        try:
            self._log.open()
        except Exception as exc:  # noqa: BLE001  # metering never fails inference
            backend.log_error(f"usage log: {exc!r}; it is tried again with every batch")
        self.load()

    def execute(self, requests: Sequence[backend.Request]) -> list[object]:
        start_ns = time.monotonic_ns()
        identities: Sequence[Identity] | None = None
        try:
            identities = self._identify(requests)
            served = self._serve(requests, identities)
            responses = [
                backend.answer(s.outputs)
                if s.error is None
                else backend.refusal(s.error, by_client=s.by_client)
                for s in served
            ]
        except Exception:
            failed = [Served(error="the batch failed")] * len(requests)
            self._record(requests, identities, failed, start_ns, time.monotonic_ns())
            raise
        self._record(requests, identities, served, start_ns, time.monotonic_ns())
        return responses

    def finalize(self) -> None:
        self._log.close()

    def _identify(self, requests: Sequence[backend.Request]) -> Sequence[Identity] | None:
        """Where a gateway is trusted; else ``None``, and identity can wait until after the work."""
        if self._gate is None:
            return None
        return self._gate.identify([backend.parameters_of(r) for r in requests], time.time())

    def _serve(
        self, requests: Sequence[backend.Request], identities: Sequence[Identity] | None
    ) -> list[Served]:
        """A request whose identity is refused never reaches the model; its batch mates do."""
        rejections: list[str | None] = [None] * len(requests)
        if self._gate is not None and identities is not None:
            rejections = [self._gate.rejection_of(i) for i in identities]
        admitted = [r for r, no in zip(requests, rejections, strict=True) if no is None]
        served = self.serve(admitted) if admitted else []
        if len(served) != len(admitted):
            raise RuntimeError(f"{len(served)} answers to {len(admitted)} requests")
        answers = iter(served)
        return [
            next(answers) if no is None else Served(error=no, by_client=True) for no in rejections
        ]

    def _record(
        self,
        requests: Sequence[backend.Request],
        identities: Sequence[Identity] | None,
        served: Sequence[Served],
        start_ns: int,
        end_ns: int,
    ) -> None:
        try:
            end_epoch_ns = time.time_ns()
            sequence = self._log.reserve()
            try:
                batch = self._usage(
                    requests,
                    identities,
                    served,
                    sequence,
                    start_ns=start_ns,
                    end_ns=end_ns,
                    end_epoch_ns=end_epoch_ns,
                )
                payload = batch.model_dump_json().encode()
            except Exception:
                self._log.lose(len(requests))
                raise
            self._log.append(sequence, payload, len(requests))
        except Exception as exc:  # noqa: BLE001  # metering never fails inference
            self.lost_batches += 1
            if self.lost_batches.bit_count() == 1:  # 1, 2, 4, 8 …: loud, but never a flood
                backend.log_error(
                    f"{self.facts.source}: {self.lost_batches} batches are not metered, "
                    f"the last one because of {exc!r}"
                )

    def _usage(
        self,
        requests: Sequence[backend.Request],
        identities: Sequence[Identity] | None,
        served: Sequence[Served],
        sequence: int,
        *,
        start_ns: int,
        end_ns: int,
        end_epoch_ns: int,
    ) -> UsageBatch:
        if identities is None:
            identities = [
                identity_of(backend.parameters_of(r)) if self._gate is None else NOBODY
                for r in requests
            ]
        counted = [_counted(r, i, s) for r, i, s in zip(requests, identities, served, strict=True)]
        return usage_of(
            self.facts,
            self.operation,
            sequence,
            counted,
            start_ns=start_ns,
            end_ns=end_ns,
            end_epoch_ns=end_epoch_ns,
        )


def _counted(request: backend.Request, identity: Identity, served: Served) -> Counted:
    return Counted(
        request_id=request.request_id(),
        identity=identity,
        rows=backend.rows_of(request),
        ok=served.error is None,
        input_tokens=served.input_tokens,
        cached_input_tokens=served.cached_input_tokens,
        output_tokens=served.output_tokens,
        reasoning_tokens=served.reasoning_tokens,
    )

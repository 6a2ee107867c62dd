"""The one wrapper around ``execute``: every model is metered by it, none meters itself."""

from __future__ import annotations

import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

from metering.apportion import DEFAULT_LABEL
from metering.finishing import usage_of_payload
from metering.records import Timing, Took, encode_head, encode_record
from metering.usage import Operation, Outcome
from metering.variables import misspelt
from triton_models.emitter import backend
from triton_models.emitter.behind import ABANDONED, Behind
from triton_models.emitter.cancelled import Watch, watch_of
from triton_models.emitter.clock import clock_of
from triton_models.emitter.device import Device
from triton_models.emitter.facts import (
    Facts,
    facts_of,
    operation_of,
    parameters_of,
    this_process,
    warm_ups_of,
)
from triton_models.emitter.gateway import NOBODY, Gate, gate_of
from triton_models.emitter.identity import Identity
from triton_models.emitter.log import UsageLog
from triton_models.emitter.record import (
    Served,
    asked_by,
    asked_by_texts,
    recorder_of,
    rows_in,
    took,
)
from triton_models.emitter.stamp import Stamp

__all__ = ["MeteredModel", "Served"]
_FAILED = Served(error="the batch failed")
_LONG_ID = 512
"""More than a name has, so what is cut is refused; it is cut so that no frame is too long."""


class MeteredModel(ABC):
    """Base of every ``TritonPythonModel``: implement ``load`` and ``serve``, nothing else.

    A batch is logged before ``execute`` returns, so an answered request is a logged one. What goes
    wrong with metering is counted and logged, and leaves a gap in the sequence; it never fails
    inference. What goes wrong with the model fails its batch, as it would without this wrapper,
    and is logged as used time with status ``failed``.
    """

    operation: ClassVar[Operation]
    facts: Facts
    config: dict[str, Any]
    lost_batches = 0
    _prefill_ns: int | None = None
    _decode_ns: int | None = None
    _texts: Sequence[str] = ()
    _stamps: Sequence[Stamp | None] = ()

    @abstractmethod
    def load(self) -> None:
        """Called once, when ``self.facts`` and ``self.config`` (config.pbtxt as JSON) are set."""

    @abstractmethod
    def serve(self, requests: Sequence[backend.Request]) -> list[Served]:
        """Answer a batch, in the order of its requests; an exception fails all of them."""

    def tell_phases(self, *, prefill_ns: int, decode_ns: int) -> None:
        """To be called within ``serve`` by a model that knows how long its batch was in each."""
        self._prefill_ns, self._decode_ns = prefill_ns, decode_ns

    def initialize(self, args: dict[str, str]) -> None:
        for warning in misspelt(os.environ):
            backend.log_warning(f"{args['model_instance_name']}: {warning}")
        self.config = json.loads(args["model_config"])
        given = parameters_of(self.config)
        self.facts = facts_of(args, os.environ, this_process())
        operation = operation_of(getattr(self, "operation", None), self.facts.model)
        self._head = encode_head(self.facts.constant(), operation, self.facts.recipe)
        if self.facts.rule.rule_id.endswith(DEFAULT_LABEL):
            backend.log_info(
                f"model {self.facts.model}: GPU time is divided by default weights "
                f"({self.facts.rule.rule_id}). To divide it by what is measured: meter calibrate"
            )
        self._batches_rows = int(self.config.get("max_batch_size", 0)) > 0
        self._recorder = None
        if self.facts.recipe is not None:  # What only this process can divide, it finishes itself.
            self._recorder = recorder_of(self._head, batched=self._batches_rows)
        self._watch: Watch = watch_of(given)
        self._behind = Behind(self.config)
        self._gate = gate_of(given, os.environ, backend.log_error, warm_ups_of(self.config))
        log_dir = Path(os.environ.get("METER_LOG_DIR", ".meter/usage-log"))
        kind, number = args["model_instance_kind"], int(args["model_instance_device_id"])
        clock = clock_of(kind, number, backend.log_error)
        self._device = Device.open(log_dir, self.facts, clock, backend.log_error)
        self._log = UsageLog.from_env(log_dir, self.facts.source, os.environ)
        try:
            self._log.open()
        except Exception as exc:  # noqa: BLE001  # metering never fails inference
            backend.log_error(f"usage log: {exc!r}; it is tried again with every batch")
        self.load()

    def execute(self, requests: Sequence[backend.Request]) -> list[object]:
        self._prefill_ns = self._decode_ns = None
        self._texts = self._stamps = ()
        asked = b""
        begun = False
        try:
            # What is done for identity takes no time of the accelerator.
            if self._behind.believes:
                self._take_stamps_off(requests)
            identities = () if self._gate is None else self._identify(self._gate, requests)
            asked = self._asked(requests, identities)
            self._device.begin()
            begun = True
            served = self._serve(requests, identities)
            responses = self._responses(requests, served)
        except Exception:
            if not begun:
                self._device.begin()
            self._record(requests, asked, None)
            raise
        self._record(requests, asked, served)
        return responses

    def finalize(self) -> None:
        self._device.close()
        self._log.close()
        self._behind.close()

    def _take_stamps_off(self, requests: Sequence[backend.Request]) -> None:
        taken = [self._behind.taken_off(backend.parameters_text(r)) for r in requests]
        self._texts = [text for text, _ in taken]
        self._stamps = [stamp for _, stamp in taken]

    def _responses(
        self, requests: Sequence[backend.Request], served: Sequence[Served]
    ) -> list[object]:
        if not self._behind.gives_receipts and all([s.error is None for s in served]):
            return [backend.answer(s.outputs) for s in served]
        return [
            self._response(r, s, position)
            for position, (r, s) in enumerate(zip(requests, served, strict=True))
        ]

    def _response(self, request: backend.Request, served: Served, position: int) -> object:
        if served.error is not None:
            message = self._behind.error(served.error, self.facts.model)
            return backend.refusal(message, by_client=served.by_client)
        if not self._behind.gives_receipts:
            return backend.answer(served.outputs)
        stamp = self._stamps[position] if self._stamps else None
        (rows,) = self._rows([request], [served])
        return backend.answer(self._behind.outputs(served, stamp, rows))

    def _identify(self, gate: Gate, requests: Sequence[backend.Request]) -> Sequence[Identity]:
        """What the gateway says of each."""
        batch = [backend.parameters_of(r) for r in requests]
        return gate.identify(batch, time.time())

    def _asked(self, requests: Sequence[backend.Request], identities: Sequence[Identity]) -> bytes:
        """Nothing, if it can't be had: then the batch is counted as lost when it is over."""
        try:
            asked: bytes | None = None
            if self._recorder is not None and not (identities or self._texts):
                asked = self._recorder.asked(requests)
            if asked is not None:
                return asked
            ids = [str(r.request_id())[:_LONG_ID] for r in requests]
            if identities:
                return asked_by(ids, identities)
            return asked_by_texts(ids, self._texts or backend.parameters_texts(requests))
        except Exception as exc:  # noqa: BLE001  # metering never fails inference
            backend.log_error(f"{self.facts.source}: {exc!r}")
            return b""

    def _serve(
        self, requests: Sequence[backend.Request], identities: Sequence[Identity]
    ) -> list[Served]:
        """A request whose identity is refused, or whose client has gone, never reaches the model;
        its batch mates do."""
        if not (identities or self._stamps):
            return self._answers(requests)
        turned_away = self._turned_away(identities)
        if turned_away is None:
            return self._answers(requests)
        admitted = [r for r, away in zip(requests, turned_away, strict=True) if away is None]
        answers = iter(self._answers(admitted) if admitted else [])
        return [next(answers) if away is None else away for away in turned_away]

    def _turned_away(self, identities: Sequence[Identity]) -> list[Served | None] | None:
        """The answers to those that are not served, by position; ``None`` if all are."""
        away: list[Served | None] = [
            ABANDONED if self._behind.is_cancelled(stamp) else None for stamp in self._stamps
        ]
        if self._gate is not None:
            told = [self._gate.rejection_of(i) for i in identities]
            refused = [None if no is None else Served(error=no, by_client=True) for no in told]
            away = [no or gone for no, gone in zip(refused, away or refused, strict=True)]
        return away if any(away) else None

    def _answers(self, requests: Sequence[backend.Request]) -> list[Served]:
        served = self.serve(requests)
        if len(served) != len(requests):
            raise RuntimeError(f"{len(served)} answers to {len(requests)} requests")
        return served

    def _record(
        self,
        requests: Sequence[backend.Request],
        asked: bytes,
        served: Sequence[Served] | None,
    ) -> None:
        """Ends the batch. Without answers (``served``), it has failed."""
        had = self._device.end()
        try:
            end_epoch_ns = time.time_ns()
            sequence = self._log.reserve()
            start_ns, end_ns, share_ns, device_ns = had
            phases = self._prefill_ns, self._decode_ns
            timing = Timing(start_ns, end_ns, end_epoch_ns, share_ns, device_ns, *phases)
            try:
                asked = asked or self._asked(requests, [NOBODY] * len(requests))
                payload = self._payload(requests, asked, served, sequence, timing)
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

    def _payload(
        self,
        requests: Sequence[backend.Request],
        asked: bytes,
        served: Sequence[Served] | None,
        sequence: int,
        timing: Timing,
    ) -> bytes:
        if served is None:
            taken = self._failed(requests, timing)
        else:
            cancelled: Collection[int] = ()
            if (wall_ns := timing.end_ns - timing.start_ns) >= self._watch.from_ns:
                cancelled = self._watch.cancelled(requests, sequence, wall_ns)
            if self._recorder is not None and not (cancelled or self._stamps):
                payload = self._recorder.record(sequence, timing, asked, served)
                if payload is not None:
                    return payload
            taken = self._took(requests, served, cancelled, timing)
        payload = encode_record(self._head, sequence, timing, asked, taken)
        if self.facts.recipe is not None:
            return payload
        # Only this process has the rule.
        return usage_of_payload(payload, self.facts.rule).model_dump_json().encode()

    def _failed(self, requests: Sequence[backend.Request], timing: Timing) -> Took:
        failed = [_FAILED] * len(requests)
        rows = self._rows(requests, failed)
        return took(rows, failed, status="failed", queue_ns=self._waited_ns(timing))

    def _took(
        self,
        requests: Sequence[backend.Request],
        served: Sequence[Served],
        cancelled: Collection[int],
        timing: Timing,
    ) -> Took:
        rows = self._rows(requests, served)
        if not (cancelled or self._stamps):
            return took(rows, served)
        others: dict[int, Outcome] = dict.fromkeys(cancelled, "cancelled")
        for position, stamp in enumerate(self._stamps):
            if self._behind.is_cancelled(stamp):
                others[position] = "cancelled"
        for position, s in enumerate(served):
            if s.error is not None:
                others[position] = "cancelled" if s is ABANDONED else "error"
        return took(rows, served, others=others, queue_ns=self._waited_ns(timing))

    def _waited_ns(self, timing: Timing) -> dict[int, int]:
        return {
            p: waited
            for p, stamp in enumerate(self._stamps)
            if stamp is not None and (waited := stamp.queue_ns(timing.start_ns)) is not None
        }

    def _rows(self, requests: Sequence[backend.Request], served: Sequence[Served]) -> list[int]:
        """As Triton counts them: the batch dimension, which answer and question have in common."""
        if not self._batches_rows:
            return [1] * len(requests)
        return [
            rows_in(s.outputs) or backend.rows_of(r) for r, s in zip(requests, served, strict=True)
        ]

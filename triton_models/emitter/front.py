"""A thin model that stands before another one and meters what never reaches it.

A cache hit, a full queue, a timeout in the queue and a cancellation before the work never come to
a model's ``execute``, so the model can't meter them. Its front can: it forwards each request
(BLS), and by what comes back it knows. What the model has executed is the model's to meter, never
the front's.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from metering.usage import LATEST, Operation, Outcome
from metering.variables import misspelt
from triton_models.emitter import backend
from triton_models.emitter.facts import (
    facts_of,
    operation_of,
    parameters_of,
    this_process,
    warm_ups_of,
)
from triton_models.emitter.front_config import FrontConfig, front_config_of
from triton_models.emitter.gateway import gate_of
from triton_models.emitter.identity import Identity, Pairs, identity_of
from triton_models.emitter.log import UsageLog
from triton_models.emitter.receipt import OUTPUT, UNKNOWN, Receipt, hit_of
from triton_models.emitter.stamp import Stamp, Unforwardable, forwarded
from triton_models.emitter.unexecuted import Arrived, head_of, unexecuted
from triton_models.emitter.verdict import QUEUE_FULL, verdict_of
from triton_models.emitter.watch import Watch

LONG_NS = 10**6
"""To ask whether a request was cancelled takes 0.1 ms; who has not waited for long is not asked."""


class MeteredFront:
    """Base of a ``TritonPythonModel`` that stands before the model ``target`` of its config.

    ``execute`` returns at once, so one instance has up to ``max_in_flight`` requests on their way,
    each in a thread of its own, for a BLS call blocks. The others wait here. What never reached the
    target is in the log before its client is answered. What goes wrong with metering never fails
    a request.
    """

    operation: ClassVar[Operation]

    def initialize(self, args: dict[str, str]) -> None:
        for warning in misspelt(os.environ):
            backend.log_warning(f"{args['model_instance_name']}: {warning}")
        config = json.loads(args["model_config"])
        given = parameters_of(config)
        self._config: FrontConfig = front_config_of(given)
        self._batches_rows = int(config.get("max_batch_size", 0)) > 0
        self._facts = replace(
            facts_of(args, os.environ, this_process()),
            model=self._config.target,
            model_version=self._config.target_version or LATEST,
        )
        operation = operation_of(getattr(self, "operation", None), self._facts.model)
        self._head = head_of(self._facts, operation)
        self._gate = gate_of(given, os.environ, backend.log_error, warm_ups_of(config))
        log_dir = Path(os.environ.get("METER_LOG_DIR", ".meter/usage-log"))
        self._log = UsageLog.from_env(log_dir, self._facts.source, os.environ)
        self._log_turn = threading.Lock()
        self._lost = 0
        self._echoes, self._echo_numbers = secrets.token_hex(6), itertools.count()
        self._present = 0
        self._turn = threading.Lock()
        self._watch = Watch(backend.log_error)
        self._pool = ThreadPoolExecutor(self._config.max_in_flight, thread_name_prefix="front")
        try:
            self._log.open()
        except Exception as exc:  # noqa: BLE001  # metering never fails inference
            backend.log_error(f"usage log: {exc!r}; it is tried again with every request")
        if not self._config.target_gives_receipts:
            backend.log_info(
                f"{args['model_name']}: {self._config.target} gives no receipts, so its cache hits "
                "are not metered here"
            )

    def execute(self, requests: Sequence[backend.Request]) -> None:
        arrival_ns = time.monotonic_ns()
        pairs = [backend.parameters_of(r) for r in requests]
        if self._gate is None:
            identities = [identity_of(p) for p in pairs]
        else:
            identities = self._gate.identify(pairs, time.time())
        arrived = [
            Arrived(
                r.request_id(),
                identity,
                backend.rows_of(r) if self._batches_rows else 1,
                arrival_ns,
            )
            for r, identity in zip(requests, identities, strict=True)
        ]
        for request, parameters, arrival in zip(requests, pairs, arrived, strict=True):
            sender = request.get_response_sender()
            if (refusal := self._refusal(arrival.identity)) is not None:
                self._record(arrival, "rejected")
                backend.send(sender, refusal)
            else:
                self._count(1)
                self._pool.submit(self._handle, request, sender, parameters, arrival)

    def finalize(self) -> None:
        self._pool.shutdown()
        self._watch.close()
        self._log.close()

    def _refusal(self, identity: Identity) -> object | None:
        """The answer to a request that goes no further than here."""
        told = None if self._gate is None else self._gate.rejection_of(identity)
        if told is not None:
            return backend.error(told, "INVALID_ARG")
        limit = self._config.max_queue_size
        if limit and self._present >= self._config.max_in_flight + limit:
            return backend.error(QUEUE_FULL, "UNAVAILABLE")
        return None

    def _count(self, change: int) -> None:
        with self._turn:
            self._present += change

    def _handle(
        self, request: backend.Request, sender: backend.Sender, parameters: Pairs, arrival: Arrived
    ) -> None:
        """In a thread of its own; the watch is over before the answer is sent."""
        try:
            waited_ns = time.monotonic_ns() - arrival.arrival_ns
            if waited_ns > LONG_NS and request.is_cancelled():
                self._record(arrival, "cancelled_in_queue")
                answer = backend.error("cancelled before it was forwarded", "CANCELLED")
            elif self._config.target_is_metered:
                with self._watch.over(request) as flag:
                    answer = self._answer(request, parameters, arrival, flag)
            else:
                answer = self._answer(request, parameters, arrival, "")
        except Exception as exc:  # noqa: BLE001  # whatever it was, a client waits for an answer
            backend.log_error(f"{self._facts.source}: {exc!r}")
            answer = backend.error(f"the front of {self._config.target}: {exc!r}", "INTERNAL")
        self._count(-1)
        backend.send(sender, answer)

    def _answer(
        self, request: backend.Request, parameters: Pairs, arrival: Arrived, flag: str
    ) -> object:
        stamp = Stamp(f"{self._echoes}-{next(self._echo_numbers)}", arrival.arrival_ns, flag)
        wanted = list(request.requested_output_names())
        if self._config.target_gives_receipts:
            wanted.append(OUTPUT)
        try:
            passed = forwarded(parameters, stamp, metered=self._config.target_is_metered)
        except Unforwardable as exc:
            self._record(arrival, "rejected")
            return backend.error(str(exc), "INVALID_ARG")
        reply = backend.call(
            request, self._config.target, self._config.target_version, wanted, passed
        )
        if reply.error is not None:
            verdict = verdict_of(self._config.target, reply.error)
            if verdict.outcome is not None:
                self._record(arrival, verdict.outcome)
            return backend.error(verdict.message, verdict.code)
        if self._config.target_gives_receipts:
            receipt = reply.outputs.get(OUTPUT)
            hit = hit_of(None if receipt is None else receipt.as_numpy(), stamp.echo)
            if hit is not None:
                self._record(arrival, "cache_hit", hit)
        return backend.hand_back([t for name, t in reply.outputs.items() if name != OUTPUT])

    def _record(self, arrival: Arrived, outcome: Outcome, receipt: Receipt = UNKNOWN) -> None:
        try:
            end_ns, end_epoch_ns = time.monotonic_ns(), time.time_ns()
            with self._log_turn:
                sequence = self._log.reserve()
                try:
                    payload = unexecuted(
                        self._head,
                        sequence,
                        arrival,
                        outcome,
                        end_ns=end_ns,
                        end_epoch_ns=end_epoch_ns,
                        receipt=receipt,
                    )
                except Exception:
                    self._log.lose(1)
                    raise
                self._log.append(sequence, payload, 1)
        except Exception as exc:  # noqa: BLE001  # metering never fails inference
            self._lost += 1
            if self._lost.bit_count() == 1:  # 1, 2, 4, 8 …: loud, but never a flood
                backend.log_error(
                    f"{self._facts.source}: {self._lost} requests are not metered, "
                    f"the last one because of {exc!r}"
                )

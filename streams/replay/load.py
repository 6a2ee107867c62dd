"""Sends a plan to Triton over gRPC, open loop: on schedule, whether or not answers have come."""

from __future__ import annotations

import asyncio
import itertools
import struct
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]  # publishes no types
from tritonclient.grpc import service_pb2, service_pb2_grpc

from streams.replay.load_result import (
    Cohort,
    FailureCounts,
    LoadResult,
    Progress,
    Tally,
    quantiles,
)
from streams.replay.plan import InvalidPlan, PlannedRequest, TextPrompt, TextToEmbed, TokenPrompt

PROGRESS_EVERY_S = 0.5
_BURST_AT_MOST = 1024
_LAST_ANSWERS_S = 2.0
_CHANNEL_OPTIONS = (
    # A connection of its own, which does not wait minutes for a server that is back.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_INT32 = struct.Struct("<i")
_LENGTH = struct.Struct("<I")

# What each kind of request carries, by tensor name and Triton's data type, and what it needs back.
_INPUTS: dict[type, tuple[tuple[str, str], ...]] = {
    TextPrompt: (("TEXT", "BYTES"), ("MAX_TOKENS", "INT32")),
    TokenPrompt: (
        ("INPUT_TOKENS", "INT32"),
        ("CACHED_INPUT_TOKENS", "INT32"),
        ("OUTPUT_TOKENS", "INT32"),
    ),
    TextToEmbed: (("TEXT", "BYTES"),),
}
_COUNTS: dict[type, frozenset[str]] = {
    TextPrompt: frozenset({"INPUT_TOKENS", "OUTPUT_TOKENS"}),
    TokenPrompt: frozenset({"INPUT_TOKENS", "OUTPUT_TOKENS"}),
    TextToEmbed: frozenset({"INPUT_TOKENS"}),
}


async def drive(
    requests: Iterable[PlannedRequest],
    triton: str,
    *,
    max_in_flight: int,
    timeout_s: float,
    on_progress: Callable[[Progress], None] | None = None,
    stop: asyncio.Event | None = None,
) -> LoadResult:
    """Send every request at its ``at_s`` after the start, or as soon after as can be.

    ``requests`` come in order of ``at_s`` and are taken one burst ahead. Nothing is dropped or
    sent again: with ``max_in_flight`` requests unanswered the next one waits, and the delay
    shows in ``max_lag_s``. An error, a timeout after ``timeout_s`` and an answer that lacks its
    token counts are counted as failures. ``on_progress`` is called twice a second and at the
    end, in the event loop. When ``stop`` is set, no more is sent, and what is not answered within
    two seconds is given up.

    Raises:
        InvalidPlan: ``max_in_flight`` or ``timeout_s`` is not above 0.
    """
    if max_in_flight < 1:
        raise InvalidPlan(f"max_in_flight={max_in_flight}: must be above 0")
    if not timeout_s > 0:
        raise InvalidPlan(f"timeout_s={timeout_s}: must be above 0")
    async with grpc.aio.insecure_channel(triton, options=_CHANNEL_OPTIONS) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        load = _Load(stub.ModelInfer, max_in_flight, timeout_s)
        return await load.run(requests, on_progress, stop)


class _Load:
    """The state of one load. Times are ``time.monotonic()``'s."""

    def __init__(
        self, infer: Callable[..., grpc.aio.UnaryUnaryCall], max_in_flight: int, timeout_s: float
    ) -> None:
        self._infer = infer
        self._slots = asyncio.Semaphore(max_in_flight)
        self._timeout_s = timeout_s
        self._started = time.monotonic()
        self._tallies: dict[Cohort, Tally] = defaultdict(Tally)
        self._failures = FailureCounts()
        self._sent_s, self._latencies_s = array("d"), array("d")
        self._waiting: set[asyncio.Task[None]] = set()
        self._crash: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sent = self._answered = self._failed = 0
        self._lag_s = self._max_lag_s = 0.0
        self._last: PlannedRequest | None = None

    async def run(
        self,
        requests: Iterable[PlannedRequest],
        on_progress: Callable[[Progress], None] | None,
        stop: asyncio.Event | None,
    ) -> LoadResult:
        interrupted = False
        stopping = asyncio.create_task((stop or asyncio.Event()).wait())
        sender = asyncio.create_task(self._send_all(requests))
        reporter = asyncio.create_task(self._report(on_progress))
        try:
            # Only the sender ends by itself; the others end by an error, which is raised here.
            ends: set[asyncio.Future[Any]] = {sender, reporter, self._crash, stopping}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done() and not sender.done():
                sender.cancel()
                if self._waiting:
                    await asyncio.wait(set(self._waiting), timeout=_LAST_ANSWERS_S)
                interrupted = True
            for ended in (self._crash, reporter, sender):
                if ended.done() and not ended.cancelled():
                    ended.result()
        finally:
            rest = [sender, reporter, stopping, *self._waiting]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
        if on_progress is not None:
            on_progress(self._state())
        p50, p99 = quantiles(self._latencies_s, (0.5, 0.99))
        return LoadResult(
            by_cohort=dict(self._tallies),
            failures=self._failures.by_reason(),
            latency_p50_s=p50,
            latency_p99_s=p99,
            sent_s=self._sent_s,
            latencies_s=self._latencies_s,
            interrupted=interrupted,
            max_lag_s=self._max_lag_s,
            elapsed_s=time.monotonic() - self._started,
        )

    async def _send_all(self, requests: Iterable[PlannedRequest]) -> None:
        for burst in _bursts(requests):
            messages = [(request, _message(request)) for request in burst]
            due = self._started + burst[0].at_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            for request, message in messages:
                await self._slots.acquire()  # at once, as long as there is a slot
                self._send(request, message)
        while self._waiting:
            await asyncio.wait(set(self._waiting))

    def _send(self, request: PlannedRequest, message: Any) -> None:
        sent_at = time.monotonic()
        call = self._infer(message, timeout=self._timeout_s)
        self._sent += 1
        self._last = request
        self._lag_s = max(0.0, sent_at - self._started - request.at_s)
        self._max_lag_s = max(self._max_lag_s, self._lag_s)
        task = asyncio.create_task(self._await_answer(request, call, sent_at))
        self._waiting.add(task)
        task.add_done_callback(self._over)

    async def _await_answer(
        self, request: PlannedRequest, call: grpc.aio.UnaryUnaryCall, sent_at: float
    ) -> None:
        try:
            answer = await call
            counts = _reported(answer, _COUNTS[type(request.inputs)])
        except asyncio.CancelledError:
            self._fail(request, "CANCELLED", "the load was stopped")
            raise
        except grpc.aio.AioRpcError as exc:
            self._fail(request, exc.code().name, exc.details() or "")
        except _UnusableAnswer as exc:
            self._fail(request, "UNUSABLE_ANSWER", str(exc))
        else:
            self._sent_s.append(sent_at - self._started)
            self._latencies_s.append(time.monotonic() - sent_at)
            self._answered += 1
            self._tallies[_cohort(request)] += Tally(
                sent=1,
                answered=1,
                input_tokens=counts["INPUT_TOKENS"],
                output_tokens=counts.get("OUTPUT_TOKENS", 0),
            )

    def _fail(self, request: PlannedRequest, code: str, message: str) -> None:
        self._failed += 1
        self._failures.add(code, message, request.request_id)
        self._tallies[_cohort(request)] += Tally(sent=1, failed=1)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._waiting.discard(task)
        self._slots.release()
        if not task.cancelled() and (exc := task.exception()) and not self._crash.done():
            self._crash.set_exception(exc)

    async def _report(self, on_progress: Callable[[Progress], None] | None) -> None:
        while True:
            await asyncio.sleep(PROGRESS_EVERY_S)
            if on_progress is not None:
                on_progress(self._state())

    def _state(self) -> Progress:
        return Progress(
            elapsed_s=time.monotonic() - self._started,
            at_s=self._last.at_s if self._last is not None else 0.0,
            phase=self._last.phase if self._last is not None else "",
            sent=self._sent,
            answered=self._answered,
            failed=self._failed,
            in_flight=len(self._waiting),
            lag_s=self._lag_s,
            worst=next(iter(self._failures.by_reason()), "") if self._failed else "",
        )


class _UnusableAnswer(Exception):
    """An answer without the token counts that its model owes."""


def _cohort(request: PlannedRequest) -> Cohort:
    return Cohort(request.model, request.tenant, request.phase)


def _bursts(requests: Iterable[PlannedRequest]) -> Iterator[list[PlannedRequest]]:
    """Requests of one ``at_s`` together, 1,024 at most, so that answers get a turn in between."""
    for _, together in itertools.groupby(requests, key=lambda request: request.at_s):
        while burst := list(itertools.islice(together, _BURST_AT_MOST)):
            yield burst


def _message(request: PlannedRequest) -> Any:
    """A ``ModelInferRequest``; identity goes as parameters, those that are not empty."""
    message = service_pb2.ModelInferRequest(model_name=request.model, id=request.request_id)
    for name, datatype in _INPUTS[type(request.inputs)]:
        message.inputs.add(name=name, datatype=datatype, shape=(1, 1))
    message.raw_input_contents.extend(_tensors(request.inputs))
    for name in ("tenant", "team", "project", "user", "retry_of"):
        value = getattr(request, name)
        if value:
            message.parameters[name].string_param = value
    return message


def _tensors(inputs: TextPrompt | TokenPrompt | TextToEmbed) -> tuple[bytes, ...]:
    """In the order of ``_INPUTS``. A BYTES element is its length, 4 bytes, and its bytes."""
    if isinstance(inputs, TokenPrompt):
        counts = (inputs.input_tokens, inputs.cached_input_tokens, inputs.output_tokens)
        return tuple(_INT32.pack(count) for count in counts)
    text = inputs.text.encode()
    element = _LENGTH.pack(len(text)) + text
    if isinstance(inputs, TextPrompt):
        return element, _INT32.pack(inputs.max_tokens)
    return (element,)


def _reported(answer: Any, owed: frozenset[str]) -> dict[str, int]:
    """The token counts of an answer, by output name: ``INT32[1,1]``, little-endian."""
    counts: dict[str, int] = {}
    for output, content in zip(answer.outputs, answer.raw_output_contents, strict=False):
        if output.name in owed:
            if output.datatype != "INT32" or len(content) != _INT32.size:
                raise _UnusableAnswer(
                    f"{output.name} is {output.datatype}{list(output.shape)}, not INT32[1,1]"
                )
            (counts[output.name],) = _INT32.unpack(content)
    missing = owed - counts.keys()
    if missing:
        raise _UnusableAnswer(f"{', '.join(sorted(missing))} is missing from the answer")
    return counts

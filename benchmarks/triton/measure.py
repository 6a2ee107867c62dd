"""One model under its clients, block by block: switch, let it settle, count."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from benchmarks.triton import cores
from benchmarks.triton.board import BATCHES, Batch, Board
from benchmarks.triton.clients import Answers
from benchmarks.triton.statistics import Block, quantile
from metering.errors import MeteringError
from streams.stack.child import leashed
from streams.stack.places import REPO
from streams.stack.stack import Stack

WARM_UP_S = 1.5
LEAST_BATCHES = 3
STALLED_S = 10.0
TELL_EVERY = 30
"""Blocks."""
_START_S = 60.0
_STOP_S = 30.0
_PARTS = ("triton", "shipper", "kafka")


@dataclass(frozen=True, slots=True)
class Measured:
    """What of a block counts: batches that began and ended in it, answers that came in it."""

    block: Block
    batches: list[Batch]
    latencies_s: list[float]
    cores: Mapping[str, float]

    @property
    def requests_per_s(self) -> float:
        """From the end of the first batch to the end of the last: whole batches, so that a block's
        length need not be a multiple of theirs."""
        first, *rest = self.batches
        return sum(b.requests for b in rest) / ((rest[-1].ended_ns - first.ended_ns) / 1e9)

    @property
    def period_us(self) -> float:
        """From the end of one batch to the end of the next, on average."""
        first, last = self.batches[0], self.batches[-1]
        return (last.ended_ns - first.ended_ns) / (len(self.batches) - 1) / 1e3

    @property
    def serve_ns(self) -> float:
        return fmean(b.serve_ns for b in self.batches)

    @property
    def batch_size(self) -> float:
        return fmean(b.requests for b in self.batches)

    @property
    def beside_us(self) -> float:
        return median(b.beside_ns for b in self.batches) / 1e3

    def latency_ms(self, q: float) -> float:
        return quantile(self.latencies_s, q) * 1e3


@dataclass(frozen=True, slots=True)
class _Span:
    block: Block
    batches: list[Batch]
    begin_ns: int
    end_ns: int
    cores: Mapping[str, float]


async def measure(
    stack: Stack,
    board: Board,
    model: str,
    blocks: Iterable[Block],
    *,
    settle_s: float,
    count_s: float,
    say: Callable[[str], None],
) -> list[Measured]:
    """Every block lasts ``settle_s`` and ``count_s``, or until it has ``LEAST_BATCHES``; only the
    second part is counted.

    Raises:
        MeteringError: the clients fail, or a block's batches are not as its switch says.
    """
    answers = stack.endpoints.folder / f"answers-{model}"
    clients = await _start(stack.endpoints.triton_grpc, model, answers)
    try:
        await _until_warm(clients, board, model)
        spans = []
        for number, block in enumerate(blocks):
            board.on = block.on
            await asyncio.sleep(settle_s)
            span = await _count(stack, board, block, clients.pid, count_s)
            _check(clients, span, model)
            spans.append(span)
            if number % TELL_EVERY == 0:
                say(f"{model}: {_told(span)}")
    finally:
        if clients.stdin is not None:
            clients.stdin.close()
        try:
            await asyncio.wait_for(clients.wait(), _STOP_S)
        except TimeoutError:
            clients.kill()
            await clients.wait()
    if clients.returncode != 0:
        raise _failed(clients, model)
    seen = Answers.read(answers)
    return [
        Measured(
            span.block,
            span.batches,
            seen.latencies_s(span.begin_ns / 1e9, span.end_ns / 1e9),
            span.cores,
        )
        for span in spans
    ]


async def _start(grpc: str, model: str, answers: Path) -> asyncio.subprocess.Process:
    argv = (sys.executable, "-m", "benchmarks.triton.clients", grpc, model, str(answers))
    return await asyncio.create_subprocess_exec(
        *leashed(argv), cwd=REPO, stdin=asyncio.subprocess.PIPE, start_new_session=True
    )


async def _until_warm(clients: asyncio.subprocess.Process, board: Board, model: str) -> None:
    deadline = time.monotonic() + _START_S
    while not board.count:
        if clients.returncode is not None or time.monotonic() > deadline:
            raise _failed(clients, model)
        await asyncio.sleep(0.05)
    await asyncio.sleep(WARM_UP_S)


async def _count(stack: Stack, board: Board, block: Block, clients: int, count_s: float) -> _Span:
    groups = {name: stack.endpoints.pids[name] for name in _PARTS} | {"clients": clients}
    before, first, begin_ns = cores.read(groups), board.count, time.monotonic_ns()
    await asyncio.sleep(count_s)
    deadline = time.monotonic() + STALLED_S
    while (  # noqa: ASYNC110  # another process's memory has no event for it
        board.count <= first + LEAST_BATCHES and time.monotonic() < deadline
    ):
        await asyncio.sleep(0.01)
    end_ns, until, after = time.monotonic_ns(), board.count, cores.read(groups)
    batches = [b for b in board.batches(first, until) if b.begun_ns >= begin_ns]
    return _Span(block, batches, begin_ns, end_ns, after.cores_since(before))


def _check(clients: asyncio.subprocess.Process, span: _Span, model: str) -> None:
    if clients.returncode is not None:
        raise _failed(clients, model)
    if len(span.batches) < 2:
        raise MeteringError(
            f"{model}: {len(span.batches)} batches in a block; at least 2 are wanted "
            f"(and a board holds {BATCHES} in all)"
        )
    if any(batch.on is not span.block.on for batch in span.batches):
        raise MeteringError(f"{model}: a batch was not metered as on={span.block.on} asks for")


def _failed(clients: asyncio.subprocess.Process, model: str) -> MeteringError:
    return MeteringError(f"{model}: its clients ended with exit code {clients.returncode}")


def _told(span: _Span) -> str:
    took_ms = fmean(b.serve_ns for b in span.batches) / 1e6
    beside_us = median(b.beside_ns for b in span.batches) / 1e3
    return (
        f"pair {span.block.pair + 1:>2} {'on' if span.block.on else 'off':<3} "
        f"{len(span.batches):>4} batches, {took_ms:.2f} ms each and {beside_us:.0f} µs beside; "
        f"others {span.cores[cores.OTHERS]:.2f} cores"
    )

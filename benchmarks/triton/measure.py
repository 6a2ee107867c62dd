"""One model under its clients, block by block: each is some batches in a row, on or off."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import fmean, median

from benchmarks.triton import cores
from benchmarks.triton.board import Batch, Board
from benchmarks.triton.clients import Answers
from benchmarks.triton.statistics import Block
from metering.errors import MeteringError
from streams.stack.child import leashed
from streams.stack.places import REPO
from streams.stack.stack import Stack

WARM_UP_S = 1.5
SETTLING = 1
"""Batches that a block begins with and that do not count."""
COUNTED = 3
_AHEAD = 100
"""Batches that the model is ahead of the first block, so that its switches come in time."""
STALLED_S = 10.0
TELL_EVERY_S = 15.0
_LOOK_EVERY_S = 0.5
_START_S = 60.0
_STOP_S = 30.0
_PARTS = ("triton", "shipper", "kafka")


@dataclass(frozen=True, slots=True)
class Measured:
    """``settled_ns`` is when the last of a block's batches that do not count was over; ``batches``
    are those that do, ``latencies_s`` of the answers that came meanwhile."""

    block: Block
    settled_ns: int
    batches: list[Batch]
    latencies_s: list[float]

    @property
    def requests_per_s(self) -> float:
        """From the end of the batch before to the end of the last: whole batches."""
        return sum(b.requests for b in self.batches) / (self.period_us * len(self.batches) / 1e6)

    @property
    def period_us(self) -> float:
        """From the end of one batch to the end of the next, on average."""
        return (self.batches[-1].ended_ns - self.settled_ns) / len(self.batches) / 1e3

    @property
    def serve_ns(self) -> float:
        return fmean(b.serve_ns for b in self.batches)

    @property
    def batch_size(self) -> float:
        return fmean(b.requests for b in self.batches)

    @property
    def beside_us(self) -> float:
        return median(b.beside_ns for b in self.batches) / 1e3


@dataclass(frozen=True, slots=True)
class Run:
    """A model's blocks, and how many cores each part of the stack was busy on meanwhile."""

    blocks: list[Measured]
    cores: Mapping[str, float]


async def measure(
    stack: Stack,
    board: Board,
    model: str,
    blocks: Sequence[Block],
    say: Callable[[str], None],
) -> Run:
    """All blocks, one after the other; ``SETTLING + COUNTED`` batches each.

    Raises:
        MeteringError: the clients fail, the model stands still, or a batch is not as its switch.
        ValueError: there are more batches than a board holds.
    """
    answers = stack.endpoints.folder / f"answers-{model}"
    clients = await _start(stack.endpoints.triton_grpc, model, answers)
    try:
        await _until_warm(clients, board, model)
        groups = {name: stack.endpoints.pids[name] for name in _PARTS} | {"clients": clients.pid}
        first, each = board.count + _AHEAD, SETTLING + COUNTED
        board.switch(first, [block.on for block in blocks for _ in range(each)])
        before = cores.read(groups)
        await _until_over(clients, board, model, first + each * len(blocks), say)
        busy = cores.read(groups).cores_since(before)
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
    return Run(
        [
            _measured(model, block, board.batches(at, at + each), seen)
            for block, at in zip(blocks, count(first, each), strict=False)
        ],
        busy,
    )


def _measured(model: str, block: Block, batches: list[Batch], seen: Answers) -> Measured:
    if any(batch.on is not block.on for batch in batches):
        raise MeteringError(f"{model}: a batch was not metered as on={block.on} asks for")
    settled_ns, counted = batches[SETTLING - 1].ended_ns, batches[SETTLING:]
    latencies_s = seen.latencies_s(settled_ns / 1e9, counted[-1].ended_ns / 1e9)
    return Measured(block, settled_ns, counted, latencies_s)


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


async def _until_over(
    clients: asyncio.subprocess.Process,
    board: Board,
    model: str,
    until: int,
    say: Callable[[str], None],
) -> None:
    seen, seen_at = board.count, time.monotonic()
    tell_at = seen_at + TELL_EVERY_S
    while board.count < until:
        await asyncio.sleep(_LOOK_EVERY_S)
        now = time.monotonic()
        if clients.returncode is not None:
            raise _failed(clients, model)
        if board.count > seen:
            seen, seen_at = board.count, now
        elif now - seen_at > STALLED_S:
            raise MeteringError(f"{model}: no batch in {STALLED_S:g} s")
        if now >= tell_at:
            say(f"{model}: {_told(board, seen)}, {until - seen:,} batches to go")
            tell_at = now + TELL_EVERY_S


def _failed(clients: asyncio.subprocess.Process, model: str) -> MeteringError:
    return MeteringError(f"{model}: its clients ended with exit code {clients.returncode}")


def _told(board: Board, seen: int) -> str:
    batches = board.batches(max(0, seen - 100), seen)
    told = [f"{fmean(b.serve_ns for b in batches) / 1e6:.2f} ms a batch"]
    for on in (True, False):
        if beside := [b.beside_ns for b in batches if b.on is on]:
            told.append(f"{median(beside) / 1e3:.0f} µs beside when {'on' if on else 'off'}")
    return ", ".join(told)

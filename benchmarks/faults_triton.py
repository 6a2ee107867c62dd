"""Kills and outages of the whole chain under load: ``make faults-triton``, or with ``QUICK=1``.

One stack of real processes. Its broker is frozen (SIGSTOP), then away (killed and held down), while
clients go on; then every kind of process is killed (SIGKILL) at moments drawn from a seed. After
each part all that clients got an answer for must be in ClickHouse, once. Requests that fail because
their server was killed are counted; nobody claims them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.check import Findings, settled
from benchmarks.faults.kills import carry_out, draw_kills
from benchmarks.faults.load import MODELS, PER_SECOND, Answers, load
from benchmarks.faults.outages import away, frozen
from benchmarks.report import Figure, none_of, show, write
from metering.errors import StackError
from streams.stack.config import StackConfig
from streams.stack.places import REPO
from streams.stack.stack import Stack

RESULTS = REPO / "build" / "results" / "faults_triton.json"
LEAST_NOISE = 0.1
"""Of the p99 before: the blocks may vary by less by chance, being few."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Latencies are taken in blocks of ``block_s``, to know how much they vary by themselves."""

    kills: int
    shortest_pause_s: float
    longest_pause_s: float
    block_s: float
    blocks_before: int
    frozen_s: float
    away_s: float
    settle_s: float


FULL = Sizes(50, 0.5, 12.0, 10.0, 6, 60.0, 120.0, 180.0)
QUICK = Sizes(7, 0.8, 2.2, 2.0, 2, 4.0, 4.0, 60.0)


class Run:
    def __init__(self, stack: Stack, sizes: Sizes, seed: int, say: Callable[[str], None]) -> None:
        self._stack = stack
        self._sizes = sizes
        self._seed = seed
        self._say = say
        self.figures: dict[str, Figure] = {}

    async def outage(
        self, name: str, seconds: float, begin: Callable[[Stack], AbstractAsyncContextManager[None]]
    ) -> None:
        sizes = self._sizes
        self._say(f"{name} for {seconds:.0f} s: first {sizes.blocks_before} blocks without")
        before = [
            await self._block(f"{name}-before-{n}", sizes.block_s)
            for n in range(sizes.blocks_before)
        ]
        during: list[Answers] = []
        async with begin(self._stack):
            begun = time.monotonic()
            while (left_s := seconds - (time.monotonic() - begun)) > 0:
                block = f"{name}-during-{len(during)}"
                during.append(await self._block(block, min(sizes.block_s, left_s)))
            lasted_s = time.monotonic() - begun
        self._say(f"{name}: over; waiting for all to arrive")
        clients = _together(before + during)
        findings, arrived_s = await settled(
            self._stack.settings, clients, name, self._sizes.settle_s
        )
        p99s_before_ms, p99s_ms = _p99s_ms(before), _p99s_ms(during)
        before_ms, during_ms = statistics.median(p99s_before_ms), statistics.median(p99s_ms)
        noise_ms = max(max(p99s_before_ms) - min(p99s_before_ms), LEAST_NOISE * before_ms)
        self.figures |= {
            f"{name}: lasted": Figure(round(lasted_s, 1), "s"),
            f"{name}: client errors": none_of(len(_together(during).failed), "requests"),
            f"{name}: p99 before": Figure(round(before_ms, 1), "ms", spread=_range(p99s_before_ms)),
            f"{name}: p99 during": Figure(
                round(during_ms, 1),
                "ms",
                f"≤ {before_ms + noise_ms:.1f}",
                during_ms <= before_ms + noise_ms,
                _range(p99s_ms),
            ),
            f"{name}: until all was there": Figure(round(arrived_s, 1), "s"),
        }
        self._found(name, clients, findings)

    async def kills(self) -> None:
        sizes = self._sizes
        drawn = draw_kills(self._seed, sizes.kills, sizes.shortest_pause_s, sizes.longest_pause_s)
        going = asyncio.Event()
        clients = asyncio.create_task(
            load(
                self._stack.endpoints.triton_grpc,
                "kills",
                self._seed,
                lambda _: not going.is_set(),
                PER_SECOND,
            )
        )
        carried_out = await carry_out(self._stack, drawn, self._say)
        await asyncio.sleep(sizes.shortest_pause_s)
        going.set()
        answers = await clients
        for code, count in _by_code(answers).most_common():
            self._say(f"kills: {count} requests failed: {code}")
        self._say("kills: over; waiting for all to arrive")
        findings, arrived_s = await settled(self._stack.settings, answers, "kills", sizes.settle_s)
        self.figures |= {
            "kills: carried out": Figure(
                sum(carried_out.values()),
                "kills",
                str(sizes.kills),
                sum(carried_out.values()) == sizes.kills,
                ", ".join(f"{target} {count}" for target, count in carried_out.items()),
            ),
            "kills: requests that failed": Figure(len(answers.failed), "requests"),
            "kills: failed, but stored": Figure(findings.extra, "requests"),
            "kills: until all was there": Figure(round(arrived_s, 1), "s"),
        }
        self._found("kills", answers, findings)

    async def _block(self, prefix: str, seconds: float) -> Answers:
        grpc = self._stack.endpoints.triton_grpc
        answers = await load(grpc, prefix, self._seed, lambda at_s: at_s < seconds, PER_SECOND)
        for reason, count in answers.reasons.items():
            self._say(f"{prefix}: {count} requests failed: {reason}")
        return answers

    def _found(self, name: str, clients: Answers, findings: Findings) -> None:
        for problem in findings.problems:
            self._say(f"{name}: {problem}")
        self.figures |= {
            f"{name}: answered": Figure(len(clients.answered), "requests"),
            f"{name}: answered, not stored": none_of(len(findings.missing), "requests"),
            f"{name}: stored twice": none_of(len(findings.twice), "requests"),
            f"{name}: not conserved": none_of(len(findings.unconserved), "batches"),
            f"{name}: unequal to their lines": none_of(len(findings.windows), "windows"),
            f"{name}: refused": none_of(findings.refused, "messages"),
        }


async def run(sizes: Sizes, seed: int) -> dict[str, Figure]:
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:7.1f} s  {text}", flush=True)

    folder = Path(tempfile.mkdtemp(prefix="meter-faults-"))
    try:
        config = StackConfig(folder, models=MODELS, preferred_ports=False)
        async with Stack(config, say) as stack:
            watching = asyncio.create_task(stack.wait())
            at_work = Run(stack, sizes, seed, say)
            await at_work.outage("frozen", sizes.frozen_s, frozen)
            await at_work.outage("away", sizes.away_s, away)
            await at_work.kills()
            given_up = await _given_up(watching)
            figures = at_work.figures
            figures["processes given up"] = none_of(given_up, "processes")
            figures["took"] = Figure(round(time.monotonic() - begun), "s")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return figures


async def _given_up(watching: asyncio.Task[None]) -> int:
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        try:
            await watching
        except StackError as error:
            print(error, flush=True)
            return 1
    return 0


def _together(answers: list[Answers]) -> Answers:
    return Answers(
        frozenset().union(*(a.answered for a in answers)),
        frozenset().union(*(a.failed for a in answers)),
        {},
        None,
        None,
    )


def _by_code(answers: Answers) -> Counter[str]:
    counts: Counter[str] = Counter()
    for reason, count in answers.reasons.items():
        counts[reason.partition(":")[0]] += count
    return counts


def _p99s_ms(blocks: list[Answers]) -> list[float]:
    """The last block may be cut short; it has answers all the same."""
    return [block.p99_s * 1000 for block in blocks if block.p99_s is not None]


def _range(values: list[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f} in {len(values)} blocks"


def main() -> None:
    sizes = QUICK if os.environ.get("QUICK") == "1" else FULL
    seed = int(os.environ.get("SEED", "1"))
    figures = asyncio.run(run(sizes, seed))
    show(f"kills and outages (seed {seed})", figures)
    write(RESULTS, figures)
    print(f"written to {RESULTS.relative_to(REPO)}")
    sys.exit(any(figure.holds is False for figure in figures.values()))


if __name__ == "__main__":
    main()

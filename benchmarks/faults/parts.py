"""The parts of a run: one fault each, under load from before it until after it, then judged."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal

from benchmarks.faults.check import Findings, settled
from benchmarks.faults.kills import carry_out, draw_kills
from benchmarks.faults.latency import TOLERANCE, Seconds, by_second, compare, p99_ms, worst_ms
from benchmarks.faults.load import Answers, Clients
from benchmarks.faults.losses import Losses, losses_of, read_losses, until_caught_up
from benchmarks.faults.noise import Strangers
from benchmarks.report import Figure, none_of
from metering.wal_cap import size_bytes, survey
from streams.stack.stack import Stack

_POLL_S = 0.1
_WARM_UP_S = 0.5
"""The clients' connection, and what is cold at first."""
Stretch = tuple[float, float]
"""From and to, as ``time.monotonic()`` has it."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """``before_s`` and ``after_s`` are what the time of a fault is compared with."""

    kills: int
    shortest_pause_s: float
    longest_pause_s: float
    before_s: float
    after_s: float
    frozen_s: float
    away_s: float
    cap_s: float
    disk_s: float
    cap_bytes: int
    disk_bytes: int
    settle_s: float


@dataclass(frozen=True, slots=True)
class Fault:
    """``loses``: what the log is expected to lose by it. Then ``seconds`` count from the first
    loss on, until which the fault has not set in."""

    name: str
    seconds: float
    begin: Callable[[Stack], AbstractAsyncContextManager[None]]
    loses: Literal["dropped", "unwritten"] | None = None

    def has_set_in(self, lost: Losses) -> bool:
        found = {None: 1, "dropped": lost.dropped_requests, "unwritten": lost.unwritten_requests}
        return found[self.loses] > 0


@dataclass(frozen=True, slots=True)
class Course:
    """When what was the case, and the largest that the log was while the fault lasted."""

    before: Stretch
    during: Stretch
    healed_at: float
    after: Stretch
    log_bytes: int


class Parts:
    def __init__(self, stack: Stack, sizes: Sizes, seed: int, say: Callable[[str], None]) -> None:
        self._stack = stack
        self._sizes = sizes
        self._seed = seed
        self._say = say
        self._everybody = Answers({}, frozenset(), {})
        self.figures: dict[str, Figure] = {}

    async def fault(self, fault: Fault) -> None:
        """Clients go on from before the fault until its consequences are over."""
        stack, name, settle_s = self._stack, fault.name, self._sizes.settle_s
        lost_before = await losses_of(stack, settle_s)
        restarts_before = sum(stack.restarts.values())
        strangers = Strangers(stack)
        clients = Clients(stack.endpoints.triton_grpc, name, self._seed)
        course = await self._go_through(fault, lost_before)
        answers = await clients.end()
        await strangers.close()
        self._say_why(name, answers)
        self._say(f"{name}: over; waiting for all to arrive")
        findings, arrived_s = await settled(stack, answers, name, settle_s, lost_before)
        self._everybody += answers
        begun, ended = course.during
        self.figures |= {
            f"{name}: lasted": Figure(round(ended - begun, 1), "s"),
            f"{name}: client errors": none_of(len(answers.failed), "requests"),
            **self._latencies(name, answers, course, strangers),
            f"{name}: caught up after": Figure(round(course.after[0] - course.healed_at, 1), "s"),
            f"{name}: the last one there after": Figure(round(arrived_s, 1), "s"),
        }
        if fault.loses is not None:
            restarts = sum(stack.restarts.values()) - restarts_before
            self._lost(fault, findings, restarts)
            later = clients.sent_since(course.after[0], findings.missing)
            self.figures[f"{name}: lost once it was over"] = none_of(len(later), "requests")
        if fault.loses == "dropped":
            cap = self._sizes.cap_bytes
            self.figures[f"{name}: largest log"] = Figure(
                round(course.log_bytes / 1024), "KiB", spread=f"its cap is {cap // 1024} KiB"
            )
        self._found(name, answers, findings)

    async def kills(self) -> None:
        sizes = self._sizes
        drawn = draw_kills(self._seed, sizes.kills, sizes.shortest_pause_s, sizes.longest_pause_s)
        clients = Clients(self._stack.endpoints.triton_grpc, "kills", self._seed)
        carried_out = await carry_out(self._stack, drawn, self._say)
        await asyncio.sleep(sizes.shortest_pause_s)
        answers = await clients.end()
        self._say_why("kills", answers)
        self._say("kills: over; waiting for all to arrive")
        findings, arrived_s = await settled(self._stack, answers, "kills", sizes.settle_s)
        self._everybody += answers
        self.figures |= {
            "kills: carried out": Figure(
                sum(carried_out.values()),
                "kills",
                str(sizes.kills),
                sum(carried_out.values()) == sizes.kills,
                ", ".join(f"{target} {count}" for target, count in carried_out.items()),
            ),
            "kills: failed": Figure(len(answers.failed), "requests"),
            "kills: failed, but stored": Figure(findings.extra, "requests"),
            "kills: the last one there after": Figure(round(arrived_s, 1), "s"),
        }
        self._found("kills", answers, findings)

    async def in_the_end(self, name: str) -> None:
        """All parts of this stack once more, for what came after a part had been judged."""
        findings, _ = await settled(self._stack, self._everybody, "", self._sizes.settle_s)
        self._tell(name, findings)
        self.figures[f"{name}: in the end"] = none_of(len(findings.problems), "findings")

    async def _go_through(self, fault: Fault, lost_before: Losses) -> Course:
        sizes, stack = self._sizes, self._stack
        await asyncio.sleep(_WARM_UP_S)
        self._say(f"{fault.name}: first {sizes.before_s:g} s without")
        began_at = time.monotonic()
        await asyncio.sleep(sizes.before_s)
        log_bytes = 0
        begun_at = time.monotonic()
        before = (began_at, begun_at)
        async with fault.begin(stack):
            has_set_in = fault.loses is None
            self._say(f"{fault.name}: begun")
            while (now := time.monotonic()) - begun_at < fault.seconds or not has_set_in:
                if not has_set_in:
                    lost = await read_losses(stack)
                    has_set_in = lost is not None and fault.has_set_in(lost - lost_before)
                    if not has_set_in and now - before[1] > sizes.settle_s:
                        break  # Nothing was lost: the figures say so.
                    begun_at = now
                log_bytes = max(log_bytes, size_bytes(survey(stack.settings.log_dir).values()))
                await asyncio.sleep(_POLL_S)
            healed_at = time.monotonic()
        self._say(f"{fault.name}: over after {healed_at - before[1]:.1f} s; catching up")
        await until_caught_up(stack, sizes.settle_s)
        caught_up_at = time.monotonic()
        await asyncio.sleep(sizes.after_s)
        after = (caught_up_at, time.monotonic())
        return Course(before, (begun_at, healed_at), healed_at, after, log_bytes)

    def _latencies(
        self, name: str, answers: Answers, course: Course, strangers: Strangers
    ) -> dict[str, Figure]:
        calm = [course.before, course.after]

        def sample(*stretches: Stretch) -> Seconds:
            return by_second(answers.sent_at, answers.latencies_s, stretches)

        without, with_fault = sample(*calm), sample(course.during)
        catching_up = sample((course.healed_at, course.after[0]))
        if not without or not with_fault:
            return {f"{name}: p99 during": Figure(0, "ms", "answers", False)}
        found = compare(without, with_fault, self._seed)
        calm_cores, cores = strangers.cores(calm), strangers.cores([course.during])
        figures = {
            f"{name}: p99 without": Figure(
                round(found.without_ms, 1),
                "ms",
                spread=f"worst {worst_ms(without):.0f}; strangers took {calm_cores:.2f} cores",
            ),
            f"{name}: p99 during": Figure(
                round(found.with_ms, 1),
                "ms",
                f"≤ +{TOLERANCE:.0%}",
                found.unhurt,
                f"{found.least_ms:+.1f} to {found.most_ms:+.1f} ms; "
                f"worst {worst_ms(with_fault):.0f}; strangers took {cores:.2f} cores",
            ),
        }
        if catching_up:
            figures[f"{name}: p99 catching up"] = Figure(round(p99_ms(catching_up), 1), "ms")
        return figures

    def _lost(self, fault: Fault, findings: Findings, restarts: int) -> None:
        name, lost = fault.name, findings.lost
        for kind, requests, batches in (
            ("dropped", lost.dropped_requests, lost.dropped_batches),
            ("unwritten", lost.unwritten_requests, lost.unwritten_batches),
        ):
            expected = kind == fault.loses
            self.figures[f"{name}: counted as {kind}"] = Figure(
                requests,
                "requests",
                "above 0" if expected else None,
                requests > 0 if expected else None,
                f"{batches} batches",
            )
        if fault.loses == "unwritten":
            self.figures[f"{name}: restarts"] = none_of(restarts, "processes")

    def _found(self, name: str, clients: Answers, findings: Findings) -> None:
        self._tell(name, findings)
        self.figures |= {
            f"{name}: answered": Figure(len(clients.told), "requests"),
            f"{name}: stored": Figure(findings.stored, "requests"),
            f"{name}: unaccounted for": none_of(findings.unaccounted, "requests"),
            f"{name}: stored twice": none_of(len(findings.twice), "requests"),
            f"{name}: stored wrongly": none_of(
                len(findings.wrong) + len(findings.unknown), "requests"
            ),
            f"{name}: not conserved": none_of(len(findings.unconserved), "batches"),
            f"{name}: uncounted gaps": none_of(findings.gaps, "batches"),
            f"{name}: not on their topic": none_of(findings.unpublished, "lines"),
            f"{name}: wrong or open": none_of(len(findings.windows), "windows"),
            f"{name}: refused, unpriced": none_of(findings.refused + findings.unpriced, "messages"),
        }

    def _tell(self, name: str, findings: Findings) -> None:
        for problem in findings.problems:
            self._say(f"{name}: {problem}")

    def _say_why(self, name: str, answers: Answers) -> None:
        counts: Counter[str] = Counter()
        for reason, count in answers.reasons.items():
            counts[reason.partition(":")[0]] += count
        for code, count in counts.most_common():
            self._say(f"{name}: {count} requests failed: {code}")

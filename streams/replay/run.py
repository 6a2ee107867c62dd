"""Replays a plan and compares what was sent with what was answered and what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from metering.errors import MeteringError
from sinks.clickhouse.queries import ClickHouseReader, UnitCost
from streams.replay.load import drive
from streams.replay.load_result import LoadResult, Progress, sentence
from streams.replay.plan import PlannedRequest, TokenPrompt
from streams.replay.server import check_server
from streams.settings import Settings
from streams.settle import stored_all
from streams.targets import clickhouse_target

MAX_IN_FLIGHT = 4096
REQUEST_TIMEOUT_S = 120.0
SETTLE_TIMEOUT_S = 120.0
INTERRUPTED_SETTLE_S = 15.0
EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Counts:
    requests: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Charged:
    """What the answered requests cost, as ClickHouse has it."""

    by_cohort: Sequence[UnitCost]
    unpriced: int

    @property
    def usd(self) -> Decimal | None:
        """``None``: nothing of it has a price."""
        if self.unpriced and all(cost.usd_per_request is None for cost in self.by_cohort):
            return None
        return sum((cost.cost_usd for cost in self.by_cohort), Decimal(0))


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """The same requests, counted three times: as planned, as answered, as stored. ``stored`` and
    ``charged`` are ``None`` where ClickHouse could not be asked, for the reason ``unknown``."""

    planned: Counts
    answered: Counts
    stored: Counts | None
    load: LoadResult
    charged: Charged | None = None
    unknown: str = ""

    @property
    def counts(self) -> dict[str, Counts]:
        counts = {"replayed": self.planned, "answered": self.answered}
        return counts if self.stored is None else counts | {"stored": self.stored}

    @property
    def problems(self) -> list[str]:
        """Sentences; none if every row was sent, answered with its tokens, and stored."""
        problems = [sentence(why, count) for why, count in self.load.failures.items()]
        if self.load.interrupted:
            sent = self.load.sent
            problems.insert(0, f"stopped after {sent:,} of {self.planned.requests:,} requests")
        elif self.load.failed == 0 and self.answered != self.planned:
            problems.append(f"answered were {_said(self.answered)}; planned {_said(self.planned)}")
        if self.stored is None:
            problems.append(f"what is stored is not known: {self.unknown}")
        elif self.stored != self.answered:
            problems.append(f"stored are {_said(self.stored)}; answered {_said(self.answered)}")
        return problems

    def as_json(self) -> dict[str, Any]:
        usd = None if self.charged is None else self.charged.usd
        return {
            **{name: asdict(counts) for name, counts in self.counts.items()},
            "failed": self.load.failed,
            "interrupted": self.load.interrupted,
            "cost_usd": None if usd is None else f"{usd:f}",
            "unpriced_requests": None if self.charged is None else self.charged.unpriced,
            "latency_p50_s": self.load.latency_p50_s,
            "latency_p99_s": self.load.latency_p99_s,
            "max_lag_s": self.load.max_lag_s,
            "seconds": self.load.elapsed_s,
            "problems": self.problems,
        }


def _said(counts: Counts) -> str:
    return (
        f"{counts.requests:,} requests with {counts.input_tokens:,} input and "
        f"{counts.output_tokens:,} output tokens"
    )


async def run_replay(
    settings: Settings,
    plan: Sequence[PlannedRequest],
    prefix: str,
    say: Callable[[str], None],
    stop: asyncio.Event | None = None,
) -> ReplayReport:
    """``prefix`` begins the id of every request of the plan, and of no other. ``stop``: send no
    more, and report what there is.

    Raises:
        Unservable: nothing was sent, as Triton is away or has no such model.
    """
    await check_server(settings.triton_grpc, {request.model for request in plan})
    next_line_s = EVERY_S

    def moved(progress: Progress) -> None:
        nonlocal next_line_s
        if progress.elapsed_s >= next_line_s:
            say(progress_line(progress, len(plan)))
            next_line_s = progress.elapsed_s + EVERY_S

    say(f"replaying {len(plan):,} requests over {plan[-1].at_s:.0f} s")
    load = await drive(
        plan,
        settings.triton_grpc,
        max_in_flight=MAX_IN_FLIGHT,
        timeout_s=REQUEST_TIMEOUT_S,
        on_progress=moved,
        stop=stop,
    )
    failed = f", {load.failed:,} failed" if load.failed else ""
    say(f"{load.answered:,} answered{failed}; waiting for the last to be stored")
    prompts = [request.inputs for request in plan if isinstance(request.inputs, TokenPrompt)]
    planned = Counts(
        len(plan), sum(p.input_tokens for p in prompts), sum(p.output_tokens for p in prompts)
    )
    answered = Counts(load.answered, load.total.input_tokens, load.total.output_tokens)
    try:
        stored, charged = await _outcome(settings, prefix, load, say)
    except MeteringError as exc:
        return ReplayReport(planned, answered, None, load, unknown=str(exc))
    return ReplayReport(planned, answered, stored, load, charged)


def progress_line(progress: Progress, planned: int) -> str:
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    worst = f"; mostly {progress.worst}" if progress.worst else ""
    return (
        f"{progress.answered:,} of {planned:,} answered, {progress.in_flight:,} in flight"
        f"{failed}{worst}"
    )


async def _outcome(
    settings: Settings, prefix: str, load: LoadResult, say: Callable[[str], None]
) -> tuple[Counts, Charged]:
    """Raises ``MeteringError``: ClickHouse can't be asked."""
    loop = asyncio.get_running_loop()
    next_line = loop.time() + EVERY_S

    def stored_so_far(count: int) -> None:
        nonlocal next_line
        if loop.time() >= next_line:
            say(f"{count:,} of {load.answered:,} stored")
            next_line = loop.time() + EVERY_S

    reader = await asyncio.to_thread(ClickHouseReader, clickhouse_target(settings))
    try:
        patience_s = INTERRUPTED_SETTLE_S if load.interrupted else SETTLE_TIMEOUT_S
        await stored_all(reader, prefix, load.answered, patience_s, stored_so_far)
        stored = await asyncio.to_thread(reader.stored, prefix)
        costs = await asyncio.to_thread(reader.unit_costs, prefix)
    finally:
        reader.close()
    counts = Counts(stored.requests, stored.input_tokens, stored.output_tokens)
    return counts, Charged(costs, stored.unpriced)

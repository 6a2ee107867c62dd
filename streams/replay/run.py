"""Replays a plan and compares what was sent with what was answered and what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sinks.clickhouse.queries import ClickHouseReader
from streams.replay.load import drive
from streams.replay.load_result import LoadResult, Progress
from streams.replay.plan import PlannedRequest, TokenPrompt
from streams.settings import Settings
from streams.settle import stored_all
from streams.targets import clickhouse_target

MAX_IN_FLIGHT = 4096
REQUEST_TIMEOUT_S = 120.0
SETTLE_TIMEOUT_S = 120.0
EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Counts:
    requests: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """The same requests, counted three times: as planned, as answered, as stored."""

    planned: Counts
    answered: Counts
    stored: Counts
    load: LoadResult

    @property
    def counts(self) -> dict[str, Counts]:
        return {"replayed": self.planned, "answered": self.answered, "stored": self.stored}

    @property
    def problems(self) -> list[str]:
        problems = [
            f"{name}: {counts}, but the trace has {self.planned}"
            for name, counts in self.counts.items()
            if counts != self.planned
        ]
        problems += [f"{count} × {why}" for why, count in self.load.failures.items()]
        return problems

    def as_json(self) -> dict[str, Any]:
        return {
            **{name: asdict(counts) for name, counts in self.counts.items()},
            "latency_p50_s": self.load.latency_p50_s,
            "latency_p99_s": self.load.latency_p99_s,
            "max_lag_s": self.load.max_lag_s,
            "seconds": self.load.elapsed_s,
            "problems": self.problems,
        }


async def run_replay(
    settings: Settings, plan: Sequence[PlannedRequest], prefix: str, say: Callable[[str], None]
) -> ReplayReport:
    """``prefix`` begins the id of every request of the plan, and of no other."""
    next_line_s = EVERY_S

    def moved(progress: Progress) -> None:
        nonlocal next_line_s
        if progress.elapsed_s >= next_line_s:
            say(f"{progress.answered} of {len(plan)} answered, {progress.in_flight} in flight")
            next_line_s = progress.elapsed_s + EVERY_S

    say(f"replaying {len(plan)} requests over {plan[-1].at_s:.0f} s")
    load = await drive(
        plan,
        settings.triton_grpc,
        max_in_flight=MAX_IN_FLIGHT,
        timeout_s=REQUEST_TIMEOUT_S,
        on_progress=moved,
    )
    say(f"{load.answered} answered; waiting for the last to be stored")
    reader = ClickHouseReader(clickhouse_target(settings))
    try:
        await stored_all(reader, prefix, load.answered, SETTLE_TIMEOUT_S)
        stored = await asyncio.to_thread(reader.stored, prefix)
    finally:
        reader.close()
    prompts = [request.inputs for request in plan if isinstance(request.inputs, TokenPrompt)]
    return ReplayReport(
        Counts(
            len(plan), sum(p.input_tokens for p in prompts), sum(p.output_tokens for p in prompts)
        ),
        Counts(load.answered, load.total.input_tokens, load.total.output_tokens),
        Counts(stored.requests, stored.input_tokens, stored.output_tokens),
        load,
    )

"""A steady load on Triton whose outcome is known for each request by its id."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from streams.replay.load import drive
from streams.replay.plan import PlannedRequest, TextPrompt, TokenPrompt

MODELS = ("llama_8b_sim", "tiny_llm")
TENANTS = ("acme", "globex", "initech")
PER_SECOND = 50.0
TIMEOUT_S = 20.0
MAX_IN_FLIGHT = 512
_WORDS = ("the", "meter", "counts", "what", "each", "request", "has", "cost")


class Told(NamedTuple):
    """Who asked which model, and the tokens that the server's answer spoke of."""

    tenant: str
    model: str
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Answers:
    """What the clients know: who was told what, and who got an error instead, and why.

    ``sent_at`` (``time.monotonic()``) and ``latencies_s`` are of the answered requests, in the
    order of their answers.
    """

    told: Mapping[str, Told]
    failed: frozenset[str]
    reasons: Mapping[str, int]
    sent_at: Sequence[float] = ()
    latencies_s: Sequence[float] = ()

    @property
    def answered(self) -> frozenset[str]:
        return frozenset(self.told)

    def __add__(self, other: Answers) -> Answers:
        return Answers(
            {**self.told, **other.told},
            self.failed | other.failed,
            {
                reason: self.reasons.get(reason, 0) + other.reasons.get(reason, 0)
                for reason in self.reasons.keys() | other.reasons.keys()
            },
        )


class Clients:
    """A load that goes on, whatever happens to the server, until it is told to end."""

    def __init__(self, triton: str, prefix: str, seed: int, per_second: float = PER_SECOND) -> None:
        self._prefix = prefix
        self._per_second = per_second
        self._ended = False
        self._began_at = time.monotonic()
        self._task = asyncio.create_task(
            load(triton, prefix, seed, lambda _: not self._ended, per_second)
        )

    def sent_since(self, moment: float, names: Sequence[str]) -> list[str]:
        """Those that were due later than ``moment`` (``time.monotonic()``)."""
        first = (moment - self._began_at) * self._per_second
        return [n for n in names if int(n.removeprefix(f"{self._prefix}-")) > first]

    async def end(self) -> Answers:
        self._ended = True
        return await self._task


async def load(
    triton: str, prefix: str, seed: int, going: Callable[[float], bool], per_second: float
) -> Answers:
    """Requests ``prefix-0``, ``prefix-1`` … at an even pace, for as long as ``going`` (it is given
    the time of the next one, in seconds after the start) says so; returns when all are over.
    """
    began_at = time.monotonic()
    result = await drive(
        _requests(prefix, seed, going, per_second),
        triton,
        max_in_flight=MAX_IN_FLIGHT,
        timeout_s=TIMEOUT_S,
    )
    # Each request is a phase of its own, so that the tallies tell them apart.
    return Answers(
        told={
            c.phase: Told(c.tenant, c.model, tally.input_tokens, tally.output_tokens)
            for c, tally in result.by_cohort.items()
            if tally.answered
        },
        failed=frozenset(c.phase for c, tally in result.by_cohort.items() if tally.failed),
        reasons=result.failures,
        sent_at=[began_at + sent_s for sent_s in result.sent_s],
        latencies_s=result.latencies_s,
    )


def _requests(
    prefix: str, seed: int, going: Callable[[float], bool], per_second: float
) -> Iterator[PlannedRequest]:
    drawn = random.Random(seed)
    number = 0
    while going(at_s := number / per_second):
        model = drawn.choice(MODELS)
        inputs: TextPrompt | TokenPrompt
        if model == "tiny_llm":
            words = drawn.choices(_WORDS, k=drawn.randint(1, 12))
            inputs = TextPrompt(" ".join(words), drawn.randint(1, 8))
        else:
            tokens = drawn.randint(10, 400)
            inputs = TokenPrompt(tokens, drawn.randint(0, tokens), drawn.randint(1, 20))
        request_id = f"{prefix}-{number}"
        yield PlannedRequest(
            at_s=at_s,
            model=model,
            tenant=drawn.choice(TENANTS),
            team="",
            project="",
            user="",
            inputs=inputs,
            request_id=request_id,
            retry_of=None,
            phase=request_id,
        )
        number += 1

"""A steady load on Triton whose outcome is known for each request by its id."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from streams.replay.load import drive
from streams.replay.plan import PlannedRequest, TextPrompt, TokenPrompt

MODELS = ("llama_8b_sim", "tiny_llm")
TENANTS = ("acme", "globex", "initech")
PER_SECOND = 50.0
TIMEOUT_S = 20.0
MAX_IN_FLIGHT = 512
_WORDS = ("the", "meter", "counts", "what", "each", "request", "has", "cost")


@dataclass(frozen=True, slots=True)
class Answers:
    """What the clients know: who got an answer, and who got an error instead, and why."""

    answered: frozenset[str]
    failed: frozenset[str]
    reasons: Mapping[str, int]
    p50_s: float | None
    p99_s: float | None

    @property
    def sent(self) -> int:
        return len(self.answered) + len(self.failed)


async def load(
    triton: str, prefix: str, seed: int, going: Callable[[float], bool], per_second: float
) -> Answers:
    """Requests ``prefix-0``, ``prefix-1`` … at an even pace, for as long as ``going`` (it is given
    the time of the next one, in seconds after the start) says so; returns when all are over.
    """
    result = await drive(
        _requests(prefix, seed, going, per_second),
        triton,
        max_in_flight=MAX_IN_FLIGHT,
        timeout_s=TIMEOUT_S,
    )
    # Each request is a phase of its own, so that the tallies tell them apart.
    return Answers(
        answered=frozenset(c.phase for c, tally in result.by_cohort.items() if tally.answered),
        failed=frozenset(c.phase for c, tally in result.by_cohort.items() if tally.failed),
        reasons=result.failures,
        p50_s=result.latency_p50_s,
        p99_s=result.latency_p99_s,
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

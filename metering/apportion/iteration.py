"""Continuous batching: requests come and go between the steps of an engine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from metering.apportion.shares import Share, Turn, Weight, Work, shares_by
from metering.errors import MeteringError

_SCALE = 2**64
"""Quotients are kept to 2**-64 of a nanosecond per step: far below the 1 ns of the rounding."""


@dataclass(frozen=True, slots=True)
class IterationLevel:
    """A step's time is divided over the tokens that each request had in it.

    Iteration-level scheduling: G.-I. Yu et al., "Orca: a distributed serving system for
    transformer-based generative models", OSDI 2022. Within a step a prefilled token weighs as
    much as a decoded one: the step computes both in the same pass. Time outside of the steps, and
    of steps without tokens, is borne in the proportion of the rest. A batch whose requests tell no
    ``turns`` counts as one step; where some tell, a request without any was in none.
    """

    rule_id: str = "iteration-level/2"
    version: int = 2

    def split(self, gpu_ns: int, work: Sequence[Work]) -> list[Share]:
        turns = [w.turns for w in work]
        if not any(turns):
            turns = [(Turn(0, 1, w.input_tokens, w.output_tokens),) for w in work]
        ns_per_token = _ns_per_token(turns)
        weights = [
            Weight(
                0,
                sum(ns_per_token[t.step] * t.input_tokens for t in own),
                sum(ns_per_token[t.step] * t.output_tokens for t in own),
            )
            for own in turns
        ]
        return shares_by(gpu_ns, weights, work, self.version)


def _ns_per_token(turns: Sequence[Sequence[Turn]]) -> dict[int, int]:
    """Of every step, times ``_SCALE``; a step without tokens has 0.

    Raises:
        MeteringError: two requests tell different durations of the same step, or a negative count.
    """
    durations_ns: dict[int, int] = {}
    tokens: dict[int, int] = defaultdict(int)
    for own in turns:
        for turn in own:
            if min(turn.step_ns, turn.input_tokens, turn.output_tokens) < 0:
                raise MeteringError(f"{turn}: negative")
            known = durations_ns.setdefault(turn.step, turn.step_ns)
            if known != turn.step_ns:
                raise MeteringError(f"step {turn.step} took step_ns={known} and {turn.step_ns}")
            tokens[turn.step] += turn.input_tokens + turn.output_tokens
    return {
        step: took_ns * _SCALE // tokens[step] if tokens[step] else 0
        for step, took_ns in durations_ns.items()
    }

"""How long a Llama takes for a batch on an H100: a formula and its coefficients. Pure.

A batch is one prefill of all uncached input tokens, then one decode step per further output token
until the longest request is done; a request that is done keeps its place (static batching)::

    prefill = max(floor, base + token * uncached input tokens)
    step    = step + sequence * batch size + context_token * tokens in the KV cache

The coefficients are fitted by ``benchmarks/fit_llama.py``, which prints them and their errors:

- ``LLAMA_70B``: Splitwise's measurements of llama2-70b, fp16, on two H100-80GB (Patel et al.
  2024, ISCA; ``splitwise_perf_model.csv``, tensor_parallel 2, without batch 64, whose prefill is
  faster than that of batch 8), times two: one simulated H100 stands for both and takes twice as
  long, so that GPU time and cost are right and latency is not. Mean error: prefill 2.4 %, step
  1.0 %. Vidur's linear layers alone are 67 % of this prefill per token (attention not profiled).
- ``LLAMA_8B``: prefill from Vidur's linear layers of Llama-3-8B on an A100, by the ratio of the
  70B's layers on H100 and A100 at the same number of tokens: without attention, a lower bound.
  Steps from inference-perf's load sweep of vLLM 0.11 on one H100, below saturation, less the
  prefill that continuous batching mixes in: (latency - time to first token) / (tokens - 1) at
  the median, with the batch size by Little's law; the context's part is the KV cache's 128 KiB a
  token at 3.35 TB/s. Mean error: prefill 6.8 %, step 3.1 %.

Prompts were measured up to some thousand tokens. Longer ones, up to the 131,072 of Llama 3.1, are
extrapolated, so that traces of long contexts can be replayed; the quadratic part of attention is
not in the formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metering.errors import MeteringError


@dataclass(frozen=True, slots=True)
class SimulatedRequest:
    """Tokens of one sequence; ``input_tokens`` includes the cached ones."""

    input_tokens: int
    cached_input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class LlamaTiming:
    """Coefficients in microseconds of one H100; a model takes ``context_tokens`` at most."""

    context_tokens: int
    prefill_floor_us: float
    prefill_base_us: float
    prefill_token_us: float
    step_us: float
    step_sequence_us: float
    step_context_token_us: float

    def prefill_ns(self, uncached_tokens: int) -> int:
        """The time to the first token of every request in the batch."""
        linear_us = self.prefill_base_us + self.prefill_token_us * uncached_tokens
        return round(1_000 * max(self.prefill_floor_us, linear_us))

    def decode_ns(self, requests: Sequence[SimulatedRequest]) -> int:
        """All steps after the prefill; step ``j`` reads ``input + min(j, output)`` tokens each."""
        steps = max((r.output_tokens for r in requests), default=0) - 1
        if steps < 1:
            return 0
        context = sum(
            steps * r.input_tokens + _ramp(steps, min(r.output_tokens, steps)) for r in requests
        )
        per_step_us = self.step_us + self.step_sequence_us * len(requests)
        return round(1_000 * (steps * per_step_us + self.step_context_token_us * context))

    def batch_ns(self, requests: Sequence[SimulatedRequest]) -> int:
        """The whole batch; an empty one takes no time."""
        return sum(self.phases_ns(requests))

    def phases_ns(self, requests: Sequence[SimulatedRequest]) -> tuple[int, int]:
        """The batch's prefill and its decode."""
        if not requests:
            return 0, 0
        uncached = sum(r.input_tokens - r.cached_input_tokens for r in requests)
        return self.prefill_ns(uncached), self.decode_ns(requests)

    def apportionment_ps(self, *, batch_size: int, output_tokens: int) -> tuple[int, int, int]:
        """``fixed_ps``, ``input_token_ps`` and ``output_token_ps`` at a typical batch.

        A step's own cost is shared by the sequences that are in it. The context belongs to whose
        it is: an input token is read in every step, an output token in half of them.
        """
        context_us = self.step_context_token_us * output_tokens
        output_us = self.step_us / batch_size + self.step_sequence_us
        output_us += self.step_context_token_us * output_tokens / 2
        return (
            round(self.prefill_base_us * 10**6),
            round((self.prefill_token_us + context_us) * 10**6),
            round(output_us * 10**6),
        )

    def check(self, request: SimulatedRequest) -> None:
        """Refuse what no Llama could be asked.

        Raises:
            MeteringError: naming the field, its value and the limit.
        """
        r = request
        if r.input_tokens < 1 or r.output_tokens < 1:
            raise MeteringError(
                f"INPUT_TOKENS={r.input_tokens}, OUTPUT_TOKENS={r.output_tokens}: at least 1 each"
            )
        if not 0 <= r.cached_input_tokens <= r.input_tokens:
            raise MeteringError(
                f"CACHED_INPUT_TOKENS={r.cached_input_tokens} is not from 0 to "
                f"INPUT_TOKENS={r.input_tokens}"
            )
        if r.input_tokens + r.output_tokens > self.context_tokens:
            raise MeteringError(
                f"INPUT_TOKENS={r.input_tokens} + OUTPUT_TOKENS={r.output_tokens} exceed the "
                f"context of {self.context_tokens} tokens"
            )


LLAMA_70B = LlamaTiming(
    context_tokens=131_072,
    prefill_floor_us=100_180.80,
    prefill_base_us=14_203.39,
    prefill_token_us=296.17,
    step_us=73_747.21,
    step_sequence_us=813.48,
    step_context_token_us=0.1219,
)
LLAMA_8B = LlamaTiming(
    context_tokens=131_072,
    prefill_floor_us=6_847.53,
    prefill_base_us=2_990.07,
    prefill_token_us=22.61,
    step_us=6_897.52,
    step_sequence_us=11.85,
    step_context_token_us=0.0391,
)
# What the coefficients of apportionment in the models' configs are taken at.
REFERENCE_BATCH_SIZE = 16
REFERENCE_OUTPUT_TOKENS = 128


def _ramp(steps: int, top: int) -> int:
    """The sum of ``min(j, top)`` over ``j`` from 1 to ``steps``."""
    return top * (top + 1) // 2 + (steps - top) * top

"""How the time of a batch is divided among its requests.

Every rule returns non-negative integers that sum to the whole exactly (largest remainder).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metering.errors import MeteringError


def largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    """Divide ``total`` units in proportion to ``weights``; the parts sum to ``total`` exactly.

    Hamilton's method: floors first, then one unit each to the largest remainders. Ties go to the
    larger weight, then to the earlier position. Weights that are all 0 count as equal ones.

    Raises:
        MeteringError: ``total`` or a weight is negative, or there is a total but nobody to take it.
    """
    if total < 0 or any(w < 0 for w in weights):
        raise MeteringError(f"can't divide total={total} by weights={list(weights)}: negative")
    if not weights:
        if total:
            raise MeteringError(f"can't divide total={total} among no requests")
        return []
    whole = sum(weights)
    if whole == 0:
        weights = [1] * len(weights)
        whole = len(weights)
    parts = [total * w // whole for w in weights]
    left = total - sum(parts)
    if left:
        order = sorted(
            range(len(weights)), key=lambda i: (-(total * weights[i] % whole), -weights[i], i)
        )
        for i in order[:left]:
            parts[i] += 1
    return parts


@dataclass(frozen=True, slots=True)
class Work:
    """What one request put into a batch, in tokens."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Share:
    """What one request got of the batch's time; ``gpu_ns = input_gpu_ns + output_gpu_ns``."""

    gpu_ns: int
    input_gpu_ns: int
    output_gpu_ns: int


@dataclass(frozen=True, slots=True)
class AffineShapley:
    """Weights ``a/n + b·input + c·output``: the Shapley value of an affine batch cost.

    With cost ``T(S) = a·[S ≠ ∅] + Σ (b·input_i + c·output_i)`` the fixed part ``a`` is shared
    equally and every request bears its own tokens (Shapley 1953, symmetry and additivity).
    The coefficients belong to a model on an accelerator, in picoseconds, so that they are integers.
    A request's own share is told apart into input and output by ``b·input : c·output``.
    """

    fixed_ps: int
    input_token_ps: int
    output_token_ps: int
    rule_id: str = "affine-shapley/1"

    def split(self, gpu_ns: int, work: Sequence[Work]) -> list[Share]:
        n = len(work)
        weights = [
            self.fixed_ps
            + n * (self.input_token_ps * w.input_tokens + self.output_token_ps * w.output_tokens)
            for w in work
        ]
        return [
            self._phases(part, w)
            for part, w in zip(largest_remainder(gpu_ns, weights), work, strict=True)
        ]

    def _phases(self, gpu_ns: int, work: Work) -> Share:
        inputs = self.input_token_ps * work.input_tokens
        outputs = self.output_token_ps * work.output_tokens
        if inputs + outputs == 0:
            inputs, outputs = 1, 0
        into, out = largest_remainder(gpu_ns, (inputs, outputs))
        return Share(gpu_ns, into, out)


EQUAL_SPLIT = AffineShapley(
    fixed_ps=1, input_token_ps=0, output_token_ps=0, rule_id="equal-split/1"
)

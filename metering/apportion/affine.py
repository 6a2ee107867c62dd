"""A cost that is linear in tokens, with a part that is there once per batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metering.apportion.shares import Share, Weight, Work, shares_by


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
        per_input = len(work) * self.input_token_ps
        per_output = len(work) * self.output_token_ps
        weights = [
            Weight(self.fixed_ps, per_input * w.input_tokens, per_output * w.output_tokens)
            for w in work
        ]
        return shares_by(gpu_ns, weights, work)


EQUAL_SPLIT = AffineShapley(
    fixed_ps=1, input_token_ps=0, output_token_ps=0, rule_id="equal-split/1"
)

"""A cost that is linear in tokens, with a part that is there once per batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metering.apportion.shares import Share, Weight, Work, shares_by


@dataclass(frozen=True, slots=True)
class AffineShapley:
    """Weights ``a·rows/R + b·input + c·output``: the Shapley value of an affine batch cost, where
    the batch has ``R`` rows.

    With cost ``T(S) = a·[S ≠ ∅] + Σ (b·input_i + c·output_i)`` the fixed part ``a`` is shared
    equally among rows, and every request bears its own tokens (Shapley 1953, symmetry and
    additivity, with rows as the players). ``version`` 1 shared it equally among requests.
    The coefficients belong to a model on an accelerator, in picoseconds, so that they are integers.
    A request's own share is told apart into input and output by ``b·input : c·output``.
    """

    fixed_ps: int
    input_token_ps: int
    output_token_ps: int
    rule_id: str = "affine-shapley/2"
    version: int = 2

    def split(self, gpu_ns: int, work: Sequence[Work]) -> list[Share]:
        players = [1 if self.version == 1 else w.row_count for w in work]
        per_input = sum(players) * self.input_token_ps
        per_output = sum(players) * self.output_token_ps
        weights = [
            Weight(self.fixed_ps * own, per_input * w.input_tokens, per_output * w.output_tokens)
            for w, own in zip(work, players, strict=True)
        ]
        return shares_by(gpu_ns, weights, work, self.version)


DEFAULT_LABEL = "@default"
"""Ends the id of a rule whose shares are told apart by ``DEFAULT_PHASES``."""
EQUAL_SPLIT = AffineShapley(
    fixed_ps=1, input_token_ps=0, output_token_ps=0, rule_id=f"equal-split/2{DEFAULT_LABEL}"
)
"""Equally among rows; each share's phases are told apart by ``DEFAULT_PHASES``, as its id says."""
EQUAL_SPLIT_1 = AffineShapley(
    fixed_ps=1, input_token_ps=0, output_token_ps=0, rule_id="equal-split/1", version=1
)

"""What every rule takes and gives, and the one way in which integers are rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from metering.errors import MeteringError


def largest_remainder(
    total: int, weights: Sequence[int], ties: Sequence[Any] | None = None
) -> list[int]:
    """Divide ``total`` units in proportion to ``weights``; the parts sum to ``total`` exactly.

    Hamilton's method: floors first, then one unit each to the largest remainders. Ties go to the
    larger weight, then to the smaller of ``ties`` (anything that can be ordered, one for each
    weight), then to the earlier position. Weights that are all 0 count as equal ones.

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
        own = range(len(weights)) if ties is None else ties
        order = sorted(
            range(len(weights)),
            key=lambda i: (-(total * weights[i] % whole), -weights[i], own[i], i),
        )
        for i in order[:left]:
            parts[i] += 1
    return parts


class Turn(NamedTuple):
    """A request's part in one step of an engine: the step's number and duration, which are the
    same for all that were in it, and the tokens that this request had in it."""

    step: int
    step_ns: int
    input_tokens: int
    output_tokens: int


class Work(NamedTuple):
    """What one request put into a batch, in tokens; cached input is not among them.

    A request of several rows tells the tokens of each in ``row_tokens`` (input, output); where it
    does not, its ``rows`` count as equally long. ``turns`` are the engine's steps that it was in.
    """

    input_tokens: int
    output_tokens: int
    rows: int = 1
    row_tokens: tuple[tuple[int, int], ...] = ()
    turns: tuple[Turn, ...] = ()

    @property
    def row_count(self) -> int:
        return len(self.row_tokens) or max(0, self.rows)

    def sequences(self) -> list[tuple[int, int]]:
        """Input and output tokens of each row; they sum to the request's where it did not tell."""
        if self.row_tokens:
            return list(self.row_tokens)
        if self.rows == 1:
            return [(self.input_tokens, self.output_tokens)]
        equal = [1] * self.rows
        return list(
            zip(
                largest_remainder(self.input_tokens, equal),
                largest_remainder(self.output_tokens, equal),
                strict=True,
            )
        )


@dataclass(frozen=True, slots=True)
class Share:
    """What one request got of the batch's time; ``gpu_ns = input_gpu_ns + output_gpu_ns``.

    ``padding_ns`` is the part of ``gpu_ns`` that was spent on padding, in either phase.
    """

    gpu_ns: int
    input_gpu_ns: int
    output_gpu_ns: int
    padding_ns: int = 0


class ApportionmentRule(Protocol):
    """Divides a batch's time. ``rule_id`` is on every event: it names the rule, its version and,
    after an ``@``, the calibration that its coefficients come from."""

    @property
    def rule_id(self) -> str: ...

    def split(self, gpu_ns: int, work: Sequence[Work]) -> list[Share]:
        """One share for each of ``work``, in its order; they sum to ``gpu_ns``.

        Raises:
            MeteringError: there is time but no request, or what a request tells contradicts itself.
        """
        ...


class Weight(NamedTuple):
    """How heavily a request weighs in its batch, by what for; any common unit.

    ``padding`` is contained in ``inputs + outputs``.
    """

    fixed: int
    inputs: int
    outputs: int
    padding: int = 0

    @property
    def total(self) -> int:
        return self.fixed + self.inputs + self.outputs


DEFAULT_PHASES = (1, 2)
"""What an input and an output token weigh in a share that no coefficient tells apart (see
docs/apportionment.md, "Without calibration", for where the numbers come from)."""


def shares_by(
    gpu_ns: int, weights: Sequence[Weight], work: Sequence[Work], version: int = 2
) -> list[Share]:
    """Divide by the weights' totals; then each share into its phases and its padding.

    The fixed part of a share goes to the phases in the proportion of the rest; where there is no
    rest, in that of its tokens by ``DEFAULT_PHASES``. Where nobody weighs anything, rows do.
    ``version`` 1 of a rule shared that equally among requests, and all of it was input.
    """
    totals = [w.total for w in weights]
    if version > 1 and not any(totals):
        totals = [w.row_count for w in work]
    parts = largest_remainder(gpu_ns, totals, work)
    return [
        _share(part, weight, (1, 0) if version == 1 else _by_default(own))
        for part, weight, own in zip(parts, weights, work, strict=True)
    ]


def _by_default(work: Work) -> tuple[int, int]:
    inputs, outputs = DEFAULT_PHASES[0] * work.input_tokens, DEFAULT_PHASES[1] * work.output_tokens
    return (inputs, outputs) if inputs + outputs else (1, 0)


def _share(gpu_ns: int, weight: Weight, phases: tuple[int, int]) -> Share:
    inputs, outputs = weight.inputs, weight.outputs
    if inputs + outputs == 0:
        inputs, outputs = phases
    into, out = largest_remainder(gpu_ns, (inputs, outputs))
    padding_ns = 0
    if weight.padding:
        padding_ns, _ = largest_remainder(gpu_ns, (weight.padding, weight.total - weight.padding))
    return Share(gpu_ns, into, out, padding_ns)

"""Batches in which a row takes as long as the longest one: who pays for the difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from metering.apportion.levels import airport, scale_of, size_times_longest
from metering.apportion.shares import Share, Weight, Work, shares_by
from metering.errors import MeteringError

MOST_ROWS = 8192
"""Of a batch that is divided row by row: the quotients are kept as integers of as many digits."""
PaddingPayer = Literal["causer", "bearer", "shared"]


@dataclass(frozen=True, slots=True)
class PaddedLength:
    """A batch padded to its longest row: it costs ``a + b·n·max(input) + c·n·max(output)``.

    Every row takes the same time, so of ``n·max`` tokens some are a row's own and some are padding.
    Own tokens are paid by their request. Padding is paid by

    - ``causer``: at every position, by the rows that still have a token there, equally. A row's
      tokens and padding together are ``n`` times its fee in the airport game of the lengths.
    - ``bearer``: by the row that is padded. Every row pays the same.
    - ``shared``: by both; the Shapley value of ``n·max``. One padded position is paid to
      ``m/(m+1)`` by the row that is padded and to the rest by the ``m`` rows that reach it.

    A request pays for its rows. Together all pay the same padding, whoever pays it.
    """

    fixed_ps: int
    input_token_ps: int
    output_token_ps: int
    payer: PaddingPayer = "causer"
    rule_id: str = "padded-length/2"
    version: int = 2

    def split(self, gpu_ns: int, work: Sequence[Work]) -> list[Share]:
        rows = _Rows(work)
        inputs = rows.sum_up(_padded(rows.inputs, self.payer))
        outputs = rows.sum_up(_padded(rows.outputs, self.payer))
        own_inputs = rows.sum_up([rows.scale * length for length in rows.inputs])
        own_outputs = rows.sum_up([rows.scale * length for length in rows.outputs])
        players = _players(work, self.version)
        n = sum(players)
        per_input, per_output = n * self.input_token_ps, n * self.output_token_ps
        weights = [
            Weight(
                fixed=self.fixed_ps * players[i] * rows.scale,
                inputs=per_input * inputs[i],
                outputs=per_output * outputs[i],
                padding=per_input * (inputs[i] - own_inputs[i])
                + per_output * (outputs[i] - own_outputs[i]),
            )
            for i in range(len(work))
        ]
        return shares_by(gpu_ns, weights, work, self.version)


@dataclass(frozen=True, slots=True)
class RunToLongest:
    """A decode that runs until its longest row is done: each step is shared equally by the rows
    that are still active.

    The Shapley value of ``T(S) = a·[S ≠ ∅] + Σ b·input_i + s·max(steps_i) + Σ c·steps_i``: ``s``
    is what a step costs however many rows are in it, ``c`` what each row adds to it. Sharing each
    step among those still active *is* the airport game's value of the steps. A row's steps are its
    output tokens after the first, which the prefill makes. Padding is the time of the seats whose
    row is done: of a step with ``m`` of ``n`` rows left, ``(n-m)/n`` of ``s``.
    """

    fixed_ps: int
    input_token_ps: int
    step_ps: int
    output_token_ps: int = 0
    rule_id: str = "run-to-longest/2"
    version: int = 2

    def split(self, gpu_ns: int, work: Sequence[Work]) -> list[Share]:
        rows = _Rows(work)
        steps = [max(0, length - 1) for length in rows.outputs]
        fees = rows.sum_up(airport(steps))
        own_steps = rows.sum_up(steps)
        players = _players(work, self.version)
        n = sum(players)
        seat = rows.scale // len(steps) if steps else 0
        weights = [
            Weight(
                fixed=self.fixed_ps * player * rows.scale,
                inputs=n * self.input_token_ps * w.input_tokens * rows.scale,
                outputs=n * (self.step_ps * fee + self.output_token_ps * own * rows.scale),
                padding=n * self.step_ps * (fee - own * seat),
            )
            for w, fee, own, player in zip(work, fees, own_steps, players, strict=True)
        ]
        return shares_by(gpu_ns, weights, work, self.version)


def _players(work: Sequence[Work], version: int) -> list[int]:
    """Among whom the fixed part is shared equally: how many each request has."""
    return [1 if version == 1 else w.row_count for w in work]


class _Rows:
    """The rows of all requests of a batch, and back from rows to requests."""

    def __init__(self, work: Sequence[Work]) -> None:
        """Raises MeteringError: there are more than ``MOST_ROWS``."""
        count = sum(w.row_count for w in work)
        if count > MOST_ROWS:
            raise MeteringError(f"rows={count}: at most {MOST_ROWS} can be divided row by row")
        given = [w.sequences() for w in work]
        self._counts = [len(rows) for rows in given]
        self.inputs = [row[0] for rows in given for row in rows]
        self.outputs = [row[1] for rows in given for row in rows]
        self.scale = scale_of(len(self.inputs))

    def sum_up(self, by_row: Sequence[int]) -> list[int]:
        """One sum for each request, of its rows' values."""
        at, sums = 0, []
        for count in self._counts:
            sums.append(sum(by_row[at : at + count]))
            at += count
        return sums


def _padded(lengths: Sequence[int], payer: PaddingPayer) -> list[int]:
    """What each row pays of ``n·max(lengths)``, times ``scale_of(n)``."""
    if payer == "shared":
        return size_times_longest(lengths)
    if payer == "causer":
        return [len(lengths) * fee for fee in airport(lengths)]
    return [scale_of(len(lengths)) * max(lengths, default=0)] * len(lengths)

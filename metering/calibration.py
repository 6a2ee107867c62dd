"""Coefficients of an apportionment rule, fitted to batches whose time was measured.

Pure: the same batches give the same coefficients, in any order of magnitude.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from metering.errors import MeteringError
from metering.leastsquares import Floats, RobustFit, robust_nnls

FEWEST_BATCHES = 30
_LEAST_TOLERANCE = 1e-3
_MOST_UNCERTAIN = 0.1
_PS_PER_NS = 1_000
_CONFIDENCE = 1.96


class MeasuredBatch(NamedTuple):
    """One executed batch: its time and what was in it; cached input is not among the tokens.

    The longest are those of a row. Where a simulation ran ``k`` times faster than what it stands
    for, ``gpu_ns`` is ``k`` times what was measured.
    """

    gpu_ns: int
    rows: int
    input_tokens: int
    output_tokens: int
    longest_input_tokens: int
    longest_output_tokens: int


class NotEnoughBatches(MeteringError):
    """Fewer batches than a fit needs."""

    def __init__(self, batches: int, needed: int) -> None:
        super().__init__(f"{batches} batches were measured, at least {needed} are needed")
        self.batches = batches
        self.needed = needed


class NotIdentifiable(MeteringError):
    """The workload does not vary in a way that would tell these coefficients."""

    def __init__(self, coefficients: Sequence[str], why: str) -> None:
        super().__init__(f"can't tell {' from '.join(coefficients)}: {why}")
        self.coefficients = tuple(coefficients)


@dataclass(frozen=True, slots=True)
class Coefficient:
    """In picoseconds. ``stderr_ps`` is ``None`` where nothing of the kind was in any batch: then
    the coefficient is 0 and bears on nothing. The interval has 95 %, and does not go below 0."""

    ps: int
    stderr_ps: float | None

    @property
    def half_width_ps(self) -> float:
        """Of the 95 % interval, before it is cut at 0."""
        return _CONFIDENCE * (self.stderr_ps or 0.0)

    @property
    def interval_ps(self) -> tuple[float, float]:
        return max(0.0, self.ps - self.half_width_ps), self.ps + self.half_width_ps


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fit. ``r_squared`` is over all batches, ``robust_r_squared`` over them as they were
    weighted: outliers count for nothing. Both are ``None`` where the time does not vary.
    ``condition`` is that of the workload's columns, each of length 1: how alike they are.
    """

    rule: str
    coefficients: Mapping[str, Coefficient]
    batches: int
    outliers: int
    r_squared: float | None
    robust_r_squared: float | None
    condition: float

    @property
    def coefficients_ps(self) -> dict[str, int]:
        return {name: c.ps for name, c in self.coefficients.items()}


_Column = Callable[[MeasuredBatch], int]
_PADDED: Mapping[str, _Column] = {
    "fixed_ps": lambda _: 1,
    "input_token_ps": lambda b: b.rows * b.longest_input_tokens,
    "output_token_ps": lambda b: b.rows * b.longest_output_tokens,
}
COSTS: Mapping[str, Mapping[str, _Column]] = MappingProxyType(
    {
        "affine-shapley": {
            "fixed_ps": lambda _: 1,
            "input_token_ps": lambda b: b.input_tokens,
            "output_token_ps": lambda b: b.output_tokens,
        },
        "padded-length": _PADDED,
        "padded-length-bearer": _PADDED,
        "padded-length-shared": _PADDED,
        "run-to-longest": {
            "fixed_ps": lambda _: 1,
            "input_token_ps": lambda b: b.input_tokens,
            "step_ps": lambda b: max(0, b.longest_output_tokens - 1),
            "output_token_ps": lambda b: max(0, b.output_tokens - b.rows),
        },
    }
)
"""By rule: what each coefficient is multiplied with, in the cost of a whole batch."""


def calibrate(batches: Sequence[MeasuredBatch], rule: str = "affine-shapley") -> Calibration:
    """Fit the coefficients of ``rule``, none negative, robust against outliers.

    Raises:
        NotEnoughBatches: fewer than ``FEWEST_BATCHES``.
        NotIdentifiable: naming the coefficients whose columns are constant, depend on each
            other, or vary so little that the noise hides them.
        MeteringError: the rule has no coefficients to fit, or a number is negative.
    """
    if rule not in COSTS:
        raise MeteringError(f"rule={rule!r} has nothing to fit; {', '.join(COSTS)} have")
    for batch in batches:
        if min(batch) < 0:
            raise MeteringError(f"{batch}: negative")
    if len(batches) < FEWEST_BATCHES:
        raise NotEnoughBatches(len(batches), FEWEST_BATCHES)
    target = np.array([b.gpu_ns for b in batches], dtype=np.float64)
    columns = {
        name: np.array([of(b) for b in batches], dtype=np.float64)
        for name, of in COSTS[rule].items()
    }
    names = [name for name, column in columns.items() if column.any()]
    matrix = np.column_stack([columns[name] for name in names])
    norms = np.linalg.norm(matrix, axis=0)
    matrix /= norms
    unit = float(np.median(target)) or 1.0
    _check_columns(matrix, names)
    fit = robust_nnls(matrix, target / unit)
    _check_columns(matrix[fit.weights > 0], names, "once outliers are left out, ")
    covariance = _covariance(matrix, target / unit, fit)
    _check_noise(matrix, fit, covariance, names)
    ps = _PS_PER_NS * unit / norms
    fitted = {
        name: Coefficient(round(float(fit.x[k] * ps[k])), float(covariance[k, k] ** 0.5 * ps[k]))
        for k, name in enumerate(names)
    }
    return Calibration(
        rule=rule,
        coefficients={name: fitted.get(name, Coefficient(0, None)) for name in columns},
        batches=len(batches),
        outliers=int((fit.weights == 0).sum()),
        r_squared=_r_squared(matrix @ fit.x, target / unit, np.ones_like(target)),
        robust_r_squared=_r_squared(matrix @ fit.x, target / unit, fit.weights / fit.row_scales**2),
        condition=float(np.linalg.cond(matrix)),
    )


def _check_columns(matrix: Floats, names: Sequence[str], when: str = "") -> None:
    """Refuse columns that the others make up, but for a thousandth of their length.

    What is left of a column beside the others is the sine of its angle to them: 1 where it
    varies by itself, 0 where it does not.
    """
    dependent = []
    for k, name in enumerate(names):
        column, others = matrix[:, k], np.delete(matrix, k, axis=1)
        if others.shape[1] == 0:
            continue
        made_up = others @ np.linalg.lstsq(others, column, rcond=None)[0]
        if np.linalg.norm(column - made_up) < _LEAST_TOLERANCE * np.linalg.norm(column):
            dependent.append(name)
    if dependent:
        raise NotIdentifiable(
            dependent,
            f"{when}every batch has the same of what they multiply, or always in one proportion; "
            "measure a workload in which batch sizes, prompts and answers vary by themselves",
        )


def _check_noise(matrix: Floats, fit: RobustFit, covariance: Floats, names: Sequence[str]) -> None:
    """Refuse coefficients whose part of a batch's time is uncertain by a tenth of that time."""
    typical = np.median(matrix @ fit.x)
    uncertain = [
        name
        for k, name in enumerate(names)
        if covariance[k, k] ** 0.5 * np.median(matrix[:, k][matrix[:, k] > 0])
        > _MOST_UNCERTAIN * typical
    ]
    if uncertain:
        raise NotIdentifiable(
            uncertain,
            f"their part of a batch's time is uncertain by more than {_MOST_UNCERTAIN:.0%} of it; "
            "measure more batches, or a workload that varies more",
        )


def _covariance(matrix: Floats, target: Floats, fit: RobustFit) -> Floats:
    """Of an M-estimate (P. J. Huber, 1981, section 7.6), as if no coefficient were at its bound."""
    a = matrix / fit.row_scales[:, None]
    residuals = (target - matrix @ fit.x) / fit.row_scales
    rows, columns = matrix.shape
    inside = fit.weights > 0
    # The bisquare's ψ' with u² = 1 - √w: (1 - u²)(1 - 5u²)
    flat = np.sqrt(fit.weights)
    slope = max(float(np.where(inside, flat * (5 * flat - 4), 0.0).mean()), 0.1)
    variance = float(((fit.weights * residuals) ** 2).sum()) / (rows - columns) / slope**2
    covariance: Floats = variance * np.linalg.inv(a.T @ a)
    return covariance


def _r_squared(fitted: Floats, target: Floats, weights: Floats) -> float | None:
    mean = float(np.average(target, weights=weights))
    total = float(weights @ (target - mean) ** 2)
    if total <= 1e-18 * float(weights @ target**2):
        return None
    return 1.0 - float(weights @ (target - fitted) ** 2) / total

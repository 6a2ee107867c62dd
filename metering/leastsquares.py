"""Least squares for coefficients that can't be negative, and that outliers can't drag away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metering.errors import MeteringError

Floats = NDArray[np.float64]

_TUKEY = 4.685
"""Of Tukey's bisquare: 95 % as efficient as least squares where the noise is Gaussian."""
_MAD_TO_SIGMA = 1.4826
_STARTS = 60
_STEPS_OF_A_START = 2
_MOST_IN_STARTS = 5_000
_REWEIGHTINGS = 60


def nnls(matrix: Floats, target: Floats) -> Floats:
    """``x ≥ 0`` that minimises ``‖matrix·x - target‖``.

    The active-set method of C. L. Lawson and R. J. Hanson, "Solving least squares problems",
    1974, chapter 23. The matrix is first reduced to a triangle, so rows cost little.

    Raises:
        MeteringError: it does not converge, which finite input of full rank never causes.
    """
    rows, columns = matrix.shape
    if rows > columns:
        orthogonal, matrix = np.linalg.qr(matrix)
        target = orthogonal.T @ target
    x, passive = np.zeros(columns), np.zeros(columns, dtype=bool)
    refused = np.zeros(columns, dtype=bool)
    scale = np.abs(matrix).sum(axis=0) * float(np.abs(target).max(initial=0.0))
    tolerance = 10 * columns * np.finfo(np.float64).eps * scale
    for _ in range(30 * columns):
        gradient = matrix.T @ (target - matrix @ x)
        wanting = ~passive & ~refused & (gradient > tolerance)
        if not wanting.any():
            return x
        entering = int(np.argmax(np.where(wanting, gradient, -np.inf)))
        passive[entering] = True
        trial = _solve(matrix, target, passive)
        if trial[entering] <= 0:  # only by rounding: its gradient says that it would be positive
            passive[entering], refused[entering] = False, True
            continue
        while (trial[passive] <= 0).any():
            leaving = passive & (trial <= 0)
            step = np.min(x[leaving] / (x[leaving] - trial[leaving]))
            x = x + step * (trial - x)
            passive &= ~leaving | (x > 1e-12 * x.max())
            x[~passive] = 0.0
            trial = _solve(matrix, target, passive)
        x = trial
        refused[:] = False
    raise MeteringError(f"least squares of {rows} × {columns} don't converge")


def _solve(matrix: Floats, target: Floats, passive: NDArray[np.bool_]) -> Floats:
    x = np.zeros(passive.size)
    x[passive] = np.linalg.lstsq(matrix[:, passive], target, rcond=None)[0]
    return x


@dataclass(frozen=True, slots=True)
class RobustFit:
    """``weights`` are 0 for outliers and up to 1 for the rest. ``row_scales`` are what residuals
    were divided by, so that their spread ``sigma`` is the same for small and large targets."""

    x: Floats
    weights: Floats
    row_scales: Floats
    sigma: float


def robust_nnls(matrix: Floats, target: Floats) -> RobustFit:
    """Non-negative least squares that up to almost half of the rows can't drag away.

    An MM-estimate (V. J. Yohai, Annals of Statistics 15, 1987): a start of high breakdown, by least
    trimmed squares with concentration steps (P. J. Rousseeuw and K. Van Driessen, "Computing LTS
    regression for large data sets", 2006), then Tukey's bisquare from there at a fixed scale.
    Noise that grows with the target, by a power between 0 and 1, is told from the residuals and
    weighted accordingly (R. J. Carroll and D. Ruppert, 1988). The same input gives the same output.
    """
    rows = target.size
    x = _least_trimmed(matrix, target)
    for _ in range(2):
        row_scales = _noise_scales(matrix @ x, target)
        a, b = matrix / row_scales[:, None], target / row_scales
        x = _concentrate(a, b, x, _kept_of(rows, matrix.shape[1]), steps=20)
    sigma = _spread(b - a @ x, matrix.shape[1])
    weights = np.ones(rows)
    for _ in range(_REWEIGHTINGS):
        weights = _bisquare(b - a @ x, sigma)
        root = np.sqrt(weights)
        before, x = x, nnls(a * root[:, None], b * root)
        if np.allclose(a @ x, a @ before, rtol=1e-10, atol=0.0):
            break
    return RobustFit(x, weights, row_scales, sigma)


def _least_trimmed(matrix: Floats, target: Floats) -> Floats:
    """The best of many starts from a few rows each: the half that fits best decides."""
    random = np.random.default_rng(0)
    rows, columns = matrix.shape
    if rows > _MOST_IN_STARTS:
        some = random.choice(rows, _MOST_IN_STARTS, replace=False)
        matrix, target = matrix[some], target[some]
        rows = _MOST_IN_STARTS
    kept = _kept_of(rows, columns)
    found: list[tuple[float, Floats]] = []
    for _ in range(_STARTS):
        few = random.choice(rows, columns + 2, replace=False)
        x = nnls(matrix[few], target[few])
        x = _concentrate(matrix, target, x, kept, steps=_STEPS_OF_A_START)
        found.append((_trimmed(matrix, target, x, kept), x))
    found.sort(key=lambda pair: pair[0])
    finished = [_concentrate(matrix, target, x, kept, steps=20) for _, x in found[:5]]
    return min(finished, key=lambda x: _trimmed(matrix, target, x, kept))


def _kept_of(rows: int, columns: int) -> int:
    return (rows + columns + 1) // 2


def _trimmed(matrix: Floats, target: Floats, x: Floats, kept: int) -> float:
    squares = (target - matrix @ x) ** 2
    return float(np.partition(squares, kept - 1)[:kept].sum())


def _concentrate(matrix: Floats, target: Floats, x: Floats, kept: int, steps: int) -> Floats:
    """Fit those rows that fit best, until they are the same: the trimmed sum never grows."""
    chosen: NDArray[np.intp] | None = None
    for _ in range(steps):
        nearest = np.sort(np.argpartition(np.abs(target - matrix @ x), kept - 1)[:kept])
        if chosen is not None and np.array_equal(nearest, chosen):
            break
        chosen = nearest
        x = nnls(matrix[chosen], target[chosen])
    return x


def _noise_scales(fitted: Floats, target: Floats) -> Floats:
    """``fitted^γ``, with γ from the slope of ``log|residual|`` over ``log fitted``, and 1 in the
    middle. Fits near 0 count as a hundredth of the middle one."""
    middle = float(np.median(fitted))
    residuals = np.abs(target - fitted)
    if middle <= 0:
        return np.ones_like(fitted)
    size = np.log(np.maximum(fitted / middle, 0.01))
    told = residuals > 1e-9 * middle
    spread = size[told] - size[told].mean() if told.sum() > 2 else np.zeros(0)
    if spread.size == 0 or float(spread @ spread) < 1e-6 * spread.size:
        return np.ones_like(fitted)
    power = float(spread @ np.log(residuals[told]) / (spread @ spread))
    scales: Floats = np.exp(min(max(power, 0.0), 1.0) * size)
    return scales


def _spread(residuals: Floats, columns: int) -> float:
    """The standard deviation of the bulk, from the median of the residuals that are not 0 by
    having been fitted exactly."""
    sizes = np.sort(np.abs(residuals))[columns:]
    return _MAD_TO_SIGMA * float(np.median(sizes)) if sizes.size else 0.0


def _bisquare(residuals: Floats, sigma: float) -> Floats:
    largest = float(np.abs(residuals).max(initial=0.0))
    if largest == 0.0:
        return np.ones_like(residuals)
    # A bulk that fits exactly still has the noise of floating point.
    u = residuals / (_TUKEY * max(sigma, 1e-9 * largest))
    weights: Floats = np.where(np.abs(u) < 1, (1 - u**2) ** 2, 0.0)
    return weights

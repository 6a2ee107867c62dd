"""From the rates of all rounds to figures: medians, spread, and what holds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.report import Figure
from benchmarks.stream.measure import Rate


@dataclass(frozen=True, slots=True)
class Ratio:
    """What one side does per core against another, and what it has to be at least."""

    side: str
    other: str
    least: float


def figures_of(
    rates: Mapping[str, Sequence[Rate]], ratios: Sequence[Ratio], batch_size: int
) -> dict[str, Figure]:
    """Ratios are taken within a round, so that what else the machine does meets both alike."""
    figures: dict[str, Figure] = {}
    for side, own in rates.items():
        figures[f"{side}_{batch_size}"] = _told([r.per_core for r in own], "req/CPU s")
        figures[f"{side}_{batch_size}_wall"] = _told([r.per_s for r in own], "req/s")
    for ratio in ratios:
        each = [
            mine.per_core / other.per_core
            for mine, other in zip(rates[ratio.side], rates[ratio.other], strict=True)
        ]
        middle = median(each)
        figures[f"{ratio.side}_per_{ratio.other}_{batch_size}"] = Figure(
            float(f"{middle:.3g}"),
            "×",
            f"≥ {ratio.least:g}",
            middle >= ratio.least,
            f"{min(each):.3g} to {max(each):.3g}",
        )
    return figures


def _told(values: Sequence[float], unit: str) -> Figure:
    spread = f"{min(values):,.0f} to {max(values):,.0f}"
    return Figure(round(median(values)), unit, spread=spread)

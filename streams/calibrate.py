"""From measured batches to entries of the calibration file: decided here, read and written by the
command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from metering.calibration import Calibration, MeasuredBatch, calibrate
from metering.calibrations import CalibrationBook, CalibrationEntry
from metering.errors import MeteringError

Kind = tuple[str, str]
"""Model and accelerator."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fit that was made, or why it was refused; ``version`` is that of the file's entry."""

    model: str
    accelerator: str
    batches: int
    fit: Calibration | None
    refusal: str
    version: str

    def as_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "model": self.model,
            "accelerator": self.accelerator,
            "batches": self.batches,
        }
        if self.fit is None:
            return {**document, "refused": self.refusal}
        return {
            **document,
            "version": self.version,
            "rule": self.fit.rule,
            "outliers": self.fit.outliers,
            "r_squared": self.fit.r_squared,
            "robust_r_squared": self.fit.robust_r_squared,
            "condition": self.fit.condition,
            "coefficients": {
                name: {"ps": c.ps, "stderr_ps": c.stderr_ps, "interval_ps": c.interval_ps}
                for name, c in self.fit.coefficients.items()
            },
        }


def fit_all(
    measured: Mapping[Kind, Sequence[MeasuredBatch]], rule: str, version: str
) -> list[Fitted]:
    """Each model on each accelerator by itself: what one can't tell does not keep the others."""
    results = []
    for (model, accelerator), batches in measured.items():
        fit, refusal = None, ""
        try:
            fit = calibrate(batches, rule)
        except MeteringError as exc:
            refusal = str(exc)
        results.append(Fitted(model, accelerator, len(batches), fit, refusal, version))
    return results


def record(
    book: CalibrationBook, results: Sequence[Fitted], fitted_at: datetime
) -> CalibrationBook:
    """The book with the fits that were made."""
    return book.with_entries(
        CalibrationEntry(
            version=result.version,
            model=result.model,
            accelerator=result.accelerator,
            rule=result.fit.rule,
            fitted_at=fitted_at,
            batches=result.fit.batches,
            outliers=result.fit.outliers,
            r_squared=_rounded(result.fit.r_squared),
            robust_r_squared=_rounded(result.fit.robust_r_squared),
            **result.fit.coefficients_ps,
        )
        for result in results
        if result.fit is not None
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)

"""What counts as an anomaly, and how long a model remembers."""

from __future__ import annotations

from dataclasses import dataclass

from metering.errors import MeteringError


@dataclass(frozen=True, slots=True)
class DetectorOptions:
    """Thresholds and spans; spans are in windows, money is USD per hour for one cohort.

    An increase is an anomaly where it is significant (``z_threshold``, in standard deviations),
    large beside what was expected (``min_relative_change``; 0.4 is +40 %) and worth somebody's
    time (``floor_usd_per_hour``). A decrease has the mirrored bounds, and is told only with
    ``report_decreases``.

    - ``min_windows``: so many with requests must be learned before a cohort is judged.
    - ``half_life_windows``: of the expectation; that of its noise is three times as long.
    - ``accept_after_windows``: a new level that lasts so long becomes the expectation.
    - ``forget_after_windows``: a cohort that was silent so long is forgotten.
    - ``repeat_after_windows``: an incident that lasts is told again so often.
    - ``close_after_windows``: so many calm windows end an incident.
    - ``min_share``: a driver with less than this share of the change gets no tag.
    - ``min_purity``: of the cohorts in a slice that could have been seen moving, so many did.
    """

    z_threshold: float = 5.0
    min_relative_change: float = 0.4
    floor_usd_per_hour: float = 1.0
    report_decreases: bool = False
    min_windows: int = 4
    half_life_windows: float = 10.0
    accept_after_windows: int = 30
    forget_after_windows: int = 360
    repeat_after_windows: int = 30
    close_after_windows: int = 3
    min_share: float = 0.1
    min_purity: float = 0.8

    def __post_init__(self) -> None:
        for name in ("z_threshold", "half_life_windows"):
            if getattr(self, name) <= 0:
                raise MeteringError(f"{name}={getattr(self, name)}: must be above 0")
        for name in ("min_relative_change", "floor_usd_per_hour"):
            if getattr(self, name) < 0:
                raise MeteringError(f"{name}={getattr(self, name)}: must not be negative")
        for name in (
            "min_windows",
            "accept_after_windows",
            "forget_after_windows",
            "repeat_after_windows",
            "close_after_windows",
        ):
            if getattr(self, name) < 1:
                raise MeteringError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.accept_after_windows <= self.min_windows:
            raise MeteringError(
                f"accept_after_windows={self.accept_after_windows} must be above "
                f"min_windows={self.min_windows}: a level is learned before it is accepted"
            )
        for name in ("min_share", "min_purity"):
            if not 0 <= getattr(self, name) <= 1:
                raise MeteringError(f"{name}={getattr(self, name)}: must be in 0..1")

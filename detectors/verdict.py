"""Whether a judged window is an anomaly: significant, large, and worth somebody's time."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

from detectors.options import DetectorOptions
from detectors.readings import Judgement


@dataclass(frozen=True, slots=True)
class Verdict:
    """An anomaly: a rise or a fall, and its score in standard deviations, above 0 for both."""

    rise: bool
    score: float


def verdict(judgement: Judgement, options: DetectorOptions) -> Verdict | None:
    """``None`` for a calm window.

    There are two ways to be an anomaly, both for a change of at least the floor. The spend as a
    whole may stand out from its noise and be off by ``min_relative_change``. Or drivers stand out
    from theirs, and together are worth that much: a doubled price does so long before the spend
    does, and whatever the chances of traffic did meanwhile. The score is the larger z.
    """
    change = judgement.change_usd_per_hour
    if change == 0.0 or abs(change) < options.floor_usd_per_hour:
        return None
    sign = 1.0 if change > 0.0 else -1.0
    low = min(judgement.expected_usd_per_hour, judgement.observed_usd_per_hour)
    least = max(options.floor_usd_per_hour, options.min_relative_change * low)
    score = 0.0
    if sign * change >= least:
        score = sign * judgement.spend_z
    certain = [m for m in judgement.moves.values() if abs(m.z) >= options.z_threshold]
    if sign * fsum(m.effect_usd_per_hour for m in certain) >= least:
        score = max([score, *(sign * m.z for m in certain)])
    return Verdict(change > 0.0, score) if score >= options.z_threshold else None

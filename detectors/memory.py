"""What is remembered of one cohort, and what a window may teach."""

from __future__ import annotations

from dataclasses import dataclass, field

from detectors.cohort import CohortModel, scale_usd_per_hour
from detectors.incidents import Incident
from detectors.options import DetectorOptions
from detectors.readings import Judgement, Reading
from detectors.verdict import Verdict

SPIKE_WINDOWS = 3
"""So few anomalous windows between calm ones belong to the cohort's texture."""


def cold_model(options: DetectorOptions, window_seconds: int) -> CohortModel:
    scale = scale_usd_per_hour(options.floor_usd_per_hour) * window_seconds / 3600.0
    return CohortModel(options.half_life_windows, scale)


@dataclass(slots=True)
class Memory:
    """One cohort. ``newcomer``: it appeared when the detector knew the others already."""

    model: CohortModel
    newcomer: bool
    incident: Incident | None = None
    silent_windows: int = 0
    _begun: bool = False
    _last: Judgement | None = None
    _odd: list[Reading] = field(default_factory=list)
    _odd_rise: bool = False
    _odd_windows: int = 0
    _candidate: CohortModel | None = None

    def judge(
        self, reading: Reading, options: DetectorOptions, window_seconds: int
    ) -> Judgement | None:
        """This window's own evidence, without that of the one before: see :meth:`confirm`.

        ``None`` from a cold model; but a newcomer is judged against nothing. Changes nothing.
        """
        per_hour = 3600.0 / window_seconds
        if self._warm(options):
            return self.model.judge(reading, per_hour)
        if self.newcomer:
            return cold_model(options, window_seconds).judge(reading, per_hour, new=True)
        return None

    def confirm(self, judgement: Judgement) -> Judgement | None:
        """With the evidence of the window before, if that was judged alike; ``None`` for the
        first spend of a newcomer, that may be a lone burst. Changes nothing.
        """
        before = self._last if self._last is not None and self._last.new == judgement.new else None
        if judgement.new and (before is None or before.observed.factors.requests == 0.0):
            return None
        return judgement.confirmed_by(before)

    def learn(
        self,
        reading: Reading,
        judgement: Judgement | None,
        found: Verdict | None,
        options: DetectorOptions,
        window_seconds: int,
    ) -> None:
        """Let a window teach what it may; ``judgement`` is its own, not the confirmed one.

        The first window of a cohort is a part of one and teaches nothing. An anomalous window
        waits: a few between calm ones are learned cut down to the threshold (winsorised), so that
        a cohort that is spiky by nature is known as such in time; many teach nothing, unless they
        last for ``accept_after_windows``, when what was learned of them aside is the new
        expectation. Silence is no level: it is only forgotten.
        """
        silent = reading.factors.requests == 0.0
        self.silent_windows = self.silent_windows + 1 if silent else 0
        self._last = judgement
        if not self._begun:
            self._begun = True
        elif found is None or not self._warm(options):
            for odd in self._odd if self._odd_windows <= SPIKE_WINDOWS else []:
                self.model.learn(odd)
            self._end_odd()
            self.model.learn(reading)
        elif not silent:
            self._wait(reading, found, options, window_seconds)

    def _warm(self, options: DetectorOptions) -> bool:
        return self.model.learned_with_requests >= options.min_windows

    def _end_odd(self) -> None:
        self._odd, self._odd_windows, self._candidate = [], 0, None

    def _wait(
        self, reading: Reading, found: Verdict, options: DetectorOptions, window_seconds: int
    ) -> None:
        if self._odd_rise != found.rise:
            self._end_odd()
        self._odd_rise = found.rise
        self._odd_windows += 1
        if self._odd_windows <= SPIKE_WINDOWS:
            cut = options.z_threshold / found.score
            self._odd.append(self.model.expected().towards(reading, cut))
        if self._candidate is None:
            # The level may have changed in mid-window: this one is no part of the new level.
            self._candidate = cold_model(options, window_seconds)
        else:
            self._candidate.learn(reading)
        if self._odd_windows >= options.accept_after_windows and (
            self._candidate.learned_with_requests >= options.min_windows
        ):
            self.model = self._candidate
            self._end_odd()

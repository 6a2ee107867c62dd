"""Spend per cohort, window by window: score, tell, then learn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from detectors.incidents import Incident
from detectors.memory import Memory, cold_model
from detectors.options import DetectorOptions
from detectors.readings import Judgement, Reading
from detectors.root_cause import Leaf, find_causes
from detectors.verdict import Verdict, verdict
from metering.costs import Anomaly, CauseTag, WindowRow
from metering.errors import MeteringError
from metering.money import ATTO_PER_USD, atto_usd, usd


class Cohort(NamedTuple):
    """``region`` is empty in rows from before regions were told apart: they are of all regions."""

    tenant: str
    model: str
    region: str

    @property
    def whole(self) -> Cohort:
        """What its rows were part of before regions were told apart."""
        return self._replace(region="")

    @property
    def where(self) -> dict[str, str]:
        return self._asdict()


def cohort_of(row: WindowRow) -> Cohort:
    return Cohort(row.tenant, row.model, row.region)


class SpendDetector:
    """Judges every cohort of closed windows; pure state, no I/O, no clock.

    The same windows in the same order give the same anomalies, with the same ids: a restart
    replays them. Memory is some kilobytes for each cohort of the last ``forget_after_windows``.
    """

    def __init__(self, options: DetectorOptions | None = None) -> None:
        self.options = DetectorOptions() if options is None else options
        self.late_windows = 0
        self._cohorts: dict[Cohort, Memory] = {}
        self._steps = 0
        self._last_start_ms: int | None = None
        self._window_seconds: int | None = None

    def observe(self, rows: Sequence[WindowRow]) -> list[Anomaly]:
        """All cohorts of one closed window; one that is not there has spent nothing.

        Windows come in the order of event time; those left out held nothing at all. A window that
        was judged before (a correction) is counted in ``late_windows`` and changes nothing else.
        Of several rows of a cohort the one with the highest ``counted_to`` is taken. The largest
        anomaly comes first.

        Raises:
            MeteringError: rows of several windows, of another length than before, not ``final``,
                or off the grid of the windows before.
        """
        if not rows:
            return []
        start_ms, seconds = self._check(rows)
        latest: dict[Cohort, WindowRow] = {}
        for row in rows:
            held = latest.get(cohort_of(row))
            if held is None or row.counted_to > held.counted_to:
                latest[cohort_of(row)] = row
        told: list[Anomaly] = []
        if self._last_start_ms is not None:
            if start_ms <= self._last_start_ms:
                self.late_windows += 1
                return []
            silent = (start_ms - self._last_start_ms) // (seconds * 1000) - 1
            for n in range(1, min(silent, self.options.forget_after_windows) + 1):
                told += self._step(self._last_start_ms + n * seconds * 1000, seconds, {})
        told += self._step(start_ms, seconds, latest)
        self._last_start_ms, self._window_seconds = start_ms, seconds
        return told

    def _check(self, rows: Sequence[WindowRow]) -> tuple[int, int]:
        windows = {(r.window_start_ms, r.window_seconds) for r in rows}
        if len(windows) > 1:
            raise MeteringError(f"rows of several windows: {sorted(windows)}")
        for row in rows:
            if not row.final:
                raise MeteringError(
                    f"window {row.window_start_ms} of {row.tenant!r}, {row.model!r}, "
                    f"{row.region!r} is not final"
                )
        start_ms, seconds = windows.pop()
        if self._window_seconds is not None and seconds != self._window_seconds:
            raise MeteringError(f"window_seconds={seconds}, but was {self._window_seconds}")
        if self._last_start_ms is not None and (start_ms - self._last_start_ms) % (seconds * 1000):
            raise MeteringError(
                f"window_start_ms={start_ms} is not a multiple of {seconds} s from "
                f"{self._last_start_ms}"
            )
        return start_ms, seconds

    def _step(self, start_ms: int, seconds: int, rows: Mapping[Cohort, WindowRow]) -> list[Anomaly]:
        if not self._cohorts:
            self._steps = 0
        others_known = self._steps > self.options.min_windows
        known = frozenset(self._cohorts)
        for cohort in rows.keys() - known:
            # One that was known as a whole is told apart now: that is no new spend.
            newcomer = others_known and cohort.whole not in known
            self._cohorts[cohort] = Memory(cold_model(self.options, seconds), newcomer)
        told_apart = {cohort.whole for cohort in rows if cohort.region}
        readings = {
            cohort: Reading.from_window(rows[cohort]) if cohort in rows else Reading()
            for cohort in sorted(self._cohorts)
        }
        own = {
            cohort: judgement
            for cohort, reading in readings.items()
            if (cohort in rows or cohort not in told_apart)
            and (judgement := self._cohorts[cohort].judge(reading, self.options, seconds))
            is not None
        }
        judged = {
            cohort: confirmed
            for cohort, judgement in own.items()
            if (confirmed := self._cohorts[cohort].confirm(judgement)) is not None
        }
        verdicts = {cohort: verdict(j, self.options) for cohort, j in judged.items()}
        leaves = {c: Leaf(c.where, j) for c, j in judged.items()}
        told: list[Anomaly] = []
        for cohort, found in verdicts.items():
            if found is None or not (found.rise or self.options.report_decreases):
                self._calm(cohort)
                continue
            causes = find_causes(leaves[cohort], tuple(leaves.values()), self.options)
            if self._is_news(cohort, found, causes):
                told.append(
                    _anomaly(
                        start_ms=start_ms,
                        seconds=seconds,
                        cohort=cohort,
                        judgement=judged[cohort],
                        found=found,
                        threshold=self.options.z_threshold,
                        causes=causes,
                        row=rows.get(cohort),
                    )
                )
        for cohort, reading in readings.items():
            found = verdicts.get(cohort)
            self._cohorts[cohort].learn(reading, own.get(cohort), found, self.options, seconds)
            if self._cohorts[cohort].silent_windows >= self.options.forget_after_windows:
                del self._cohorts[cohort]
        self._steps += 1
        return sorted(told, key=lambda a: (-abs(a.usd_per_hour), a.tenant, a.model, a.region))

    def _calm(self, cohort: Cohort) -> None:
        memory = self._cohorts[cohort]
        if memory.incident is not None and memory.incident.calmed(self.options.close_after_windows):
            memory.incident = None

    def _is_news(self, cohort: Cohort, found: Verdict, causes: tuple[CauseTag, ...]) -> bool:
        memory = self._cohorts[cohort]
        if memory.incident is None or memory.incident.rise != found.rise:
            memory.incident = Incident(found.rise)
        top = causes[0].driver if causes else None
        return memory.incident.anomalous(top, self.options.repeat_after_windows)


def anomaly_id(cohort: Cohort, window_start_ms: int, window_seconds: int) -> str:
    """32 hexadecimal digits of what the anomaly speaks of; without a region, those of before."""
    region = [cohort.region] if cohort.region else []
    key = json.dumps([cohort.tenant, cohort.model, window_start_ms, window_seconds, *region])
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _anomaly(
    *,
    start_ms: int,
    seconds: int,
    cohort: Cohort,
    judgement: Judgement,
    found: Verdict,
    threshold: float,
    causes: tuple[CauseTag, ...],
    row: WindowRow | None,
) -> Anomaly:
    expected = usd(round(judgement.expected.factors.cost_usd * ATTO_PER_USD))
    observed = usd(0) if row is None else row.cost_usd
    return Anomaly(
        anomaly_id=anomaly_id(cohort, start_ms, seconds),
        window_start_ms=start_ms,
        window_seconds=seconds,
        tenant=cohort.tenant,
        model=cohort.model,
        region=cohort.region,
        score=found.score,
        score_unit="standard deviations",
        threshold=threshold,
        expected_usd=expected,
        observed_usd=observed,
        usd_per_hour=usd((atto_usd(observed) - atto_usd(expected)) * 3600 // seconds),
        causes=causes,
    )

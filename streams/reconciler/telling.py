"""Verdicts as metrics and in the log: totals by model over all hosts, each discrepancy once."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from metering.reconciliation import Quantity, Verdict
from sinks.prometheus import BoundedLabel, ReconcilerMetrics

log = logging.getLogger(__name__)

FORGOTTEN_AFTER_NS = 600 * 10**9
"""A host that no heartbeat has come from for so long is in no total any more."""

Key = tuple[str, str, str]


class Telling:
    """Keeps the last verdicts of each host: a server that took over replaces the one before."""

    def __init__(self, metrics: ReconcilerMetrics) -> None:
        self._metrics = metrics
        self._model = BoundedLabel()
        self._last: dict[str, list[Verdict]] = {}
        self._told: dict[Key, frozenset[Quantity]] = {}

    def tell(self, host: str, verdicts: Sequence[Verdict]) -> None:
        """At least one. A model that the host's last heartbeat does not speak of any more, as it
        was unloaded or is not to be metered, is in no total."""
        self._metrics.verdicts.inc(len(verdicts))
        for verdict in verdicts:
            self._tell_of(verdict)
        self._last[host] = list(verdicts)
        self.expire(max(v.time_ns for v in verdicts))

    def clear(self, host: str) -> None:
        """Its server has no model any more that is to be metered."""
        self._last.pop(host, None)
        self._total_living()

    def expire(self, time_ns: int) -> None:
        """Forget hosts of which nothing was told for long before a heartbeat of ``time_ns``."""
        self._last = {
            name: last
            for name, last in self._last.items()
            if time_ns - last[0].time_ns <= FORGOTTEN_AFTER_NS
        }
        self._total_living()

    def _total_living(self) -> None:
        living = {v.key for last in self._last.values() for v in last}
        self._told = {key: told for key, told in self._told.items() if key in living}
        self._total()

    def _tell_of(self, verdict: Verdict) -> None:
        confirmed = frozenset(verdict.confirmed)
        told = self._told.get(verdict.key, frozenset())
        for quantity in sorted(confirmed - told):
            self._metrics.discrepancies.labels(self._model(verdict.model), quantity).inc()
            found = verdict.of(quantity)
            if found is None:
                continue
            log.error(
                "%s %s on %s: %s: server %d, stored %d to %d: %d missing, %d too many",
                verdict.model, verdict.version, verdict.host, quantity,
                found.server, found.low, found.high, found.missing, found.surplus,
            )  # fmt: skip
        for quantity in sorted(told - confirmed):
            log.info("%s on %s: %s agrees again", verdict.model, verdict.host, quantity)
        self._told[verdict.key] = confirmed

    def _total(self) -> None:
        by_model: dict[str, list[Verdict]] = {}
        for verdict in (v for last in self._last.values() for v in last):
            by_model.setdefault(self._model(verdict.model), []).append(verdict)
        gauges = (self._metrics.coverage, self._metrics.missing_executions, self._metrics.inferred)
        for gauge in gauges:
            gauge.clear()
        for model, verdicts in by_model.items():
            requests = sum(v.requests for v in verdicts)
            missing = sum(v.missing for v in verdicts)
            self._metrics.coverage.labels(model).set(1 - missing / requests if requests else 1)
            self._metrics.missing_executions.labels(model).set(
                sum(v.missing_executions for v in verdicts)
            )
            self._metrics.inferred.labels(model).set(sum(v.inferred for v in verdicts))

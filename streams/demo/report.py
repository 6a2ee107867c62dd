"""What the demo found, as data; :mod:`streams.demo.render` shows it to people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from metering.reconciliation import Verdict
from sinks.clickhouse.queries import ClickHouseReader, UnitCost
from streams.audit import Audit
from streams.reconcile import as_json, by_model
from streams.replay.load_result import LoadResult
from streams.replay.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Cause:
    driver: str
    slice: dict[str, str]
    share: float
    usd_per_hour: Decimal
    lever: str


@dataclass(frozen=True, slots=True)
class Found:
    """One anomaly, and whether its window lies in the incident."""

    window_start_ms: int
    tenant: str
    model: str
    usd_per_hour: Decimal
    in_incident: bool
    causes: tuple[Cause, ...]

    @classmethod
    def from_row(cls, row: tuple[Any, ...], *, in_incident: bool) -> Found:
        """``row`` as the demo selects it from ``cost_anomalies``."""
        causes = tuple(
            Cause(c["driver"], c["slice"], c["share"], Decimal(c["usd_per_hour"]), c["lever"])
            for c in json.loads(row[9])
        )
        return cls(row[0], row[2], row[3], row[4], in_incident, causes)


@dataclass(frozen=True, slots=True)
class WindowSpend:
    """One tenant's cost in one window."""

    window_start_ms: int
    tenant: str
    cost_usd: Decimal


def spend_by_window(reader: ClickHouseReader, since_ms: int) -> list[WindowSpend]:
    """Ten-second windows of every tenant, in order of time."""
    return [
        WindowSpend(*row)
        for row in reader.rows(
            "SELECT toUnixTimestamp64Milli(window_start), tenant, sum(cost_usd) FROM cost_windows "
            "WHERE window_seconds = 10 AND window_start >= fromUnixTimestamp64Milli({since:Int64}) "
            "GROUP BY window_start, tenant ORDER BY window_start, tenant",
            {"since": since_ms},
        )
    ]


@dataclass(frozen=True, slots=True)
class DemoReport:
    """Four counts of the same requests from four places, and what was made of them."""

    scenario: Scenario
    killed: str | None
    restarts: dict[str, int]
    load: LoadResult
    topics: Audit
    stored: int
    verdicts: Sequence[Verdict]
    unit_costs: Sequence[UnitCost]
    spend: Sequence[WindowSpend]
    incident_ns: int
    found: Sequence[Found]
    delivered: int
    folder: Path
    seconds: float

    @property
    def mean_batch_size(self) -> float:
        return self.topics.batch_rows / self.topics.batches if self.topics.batches else 0.0

    @property
    def calm_anomalies(self) -> list[Found]:
        return [f for f in self.found if not f.in_incident]

    @property
    def incident_anomalies(self) -> list[Found]:
        return [f for f in self.found if f.in_incident]

    @property
    def top(self) -> tuple[Found, Cause] | None:
        """The dearest anomaly of the incident that has a cause, and its first cause."""
        explained = [f for f in self.incident_anomalies if f.causes]
        if not explained:
            return None
        dearest = max(explained, key=lambda f: f.usd_per_hour)
        return dearest, dearest.causes[0]

    @property
    def problems(self) -> list[str]:
        """Everything that should hold and does not; empty in a good demo."""
        answered = self.load.answered
        counts = {
            "metered": self.topics.metered,
            "priced": self.topics.priced,
            "stored": self.stored,
        }
        found = [
            f"{n} requests {name}, {answered} answered"
            for name, n in counts.items()
            if n != answered
        ]
        if self.load.failed:
            found.append(f"{self.load.failed} requests failed: {dict(self.load.failures)}")
        if self.topics.mismatches:
            found.append(f"{self.topics.mismatches} batches do not sum to their GPU time")
        if self.topics.refused:
            found.append(f"{self.topics.refused} usage messages were refused")
        for verdict in self.verdicts:
            if not verdict.agrees:
                found.append(f"{verdict.model}: {as_json(verdict)}")
        if self.calm_anomalies:
            found.append(f"{len(self.calm_anomalies)} anomalies in calm traffic")
        found += self._problems_of_cause()
        if self.delivered < len(self.found):
            found.append(f"{self.delivered} of {len(self.found)} anomalies were delivered")
        return found

    def _problems_of_cause(self) -> list[str]:
        if self.top is None:
            return ["the incident was not noticed, or no cause was found"]
        _, cause = self.top
        expected = (self.scenario.expected_driver, self.scenario.expected_tenant)
        named = (cause.driver, cause.slice.get("tenant"))
        return [] if named == expected else [f"the cause is {expected}, {named} was named"]

    def as_json(self) -> dict[str, Any]:
        top = self.top
        return {
            "incident": self.scenario.incident,
            "killed": self.killed,
            "requests": {
                "answered": self.load.answered,
                "metered": self.topics.metered,
                "priced": self.topics.priced,
                "stored": self.stored,
            },
            "batches": {
                "count": self.topics.batches,
                "mean_size": round(self.mean_batch_size, 3),
            },
            "conservation": {"mismatches": self.topics.mismatches},
            "reconciliation": by_model(self.verdicts),
            "unit_costs": [_plain(asdict(cost)) for cost in self.unit_costs],
            "anomalies": {
                "calm": len(self.calm_anomalies),
                "incident": len(self.incident_anomalies),
                "delivered": self.delivered,
            },
            "top_cause": None
            if top is None
            else {
                "driver": top[1].driver,
                "slice": top[1].slice,
                "share": top[1].share,
                "usd_per_hour": f"{top[1].usd_per_hour:f}",
            },
            "problems": self.problems,
            "seconds": round(self.seconds, 1),
        }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Decimals as text, so that JSON keeps them exact."""
    return {k: f"{v:f}" if isinstance(v, Decimal) else v for k, v in values.items()}

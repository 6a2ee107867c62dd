"""Anomalies to Prometheus' Alertmanager, by version 2 of its interface."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Callable

from metering.cloudevents import rfc3339
from metering.costs import Anomaly
from metering.figures import money
from sinks.http_post import HttpPost, RetryPolicy, Sleep, checked_url

ALERT_NAME = "CostAnomaly"
HOLD_SECONDS = 600


class AlertmanagerSink(HttpPost):
    """Posts to ``URL/api/v2/alerts``. Alertmanager knows an alert by its labels, so that a
    repeat is the same alert and only moves its end.
    """

    def __init__(
        self,
        url: str,
        *,
        hold_seconds: int = HOLD_SECONDS,
        policy: RetryPolicy | None = None,
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        base = checked_url(url)
        super().__init__(
            base / "api/v2/alerts", RetryPolicy() if policy is None else policy, sleep, jitter
        )
        self._hold_seconds = hold_seconds

    async def deliver(self, anomaly: Anomaly, late_s: float = 0.0) -> None:
        """Raises :class:`~metering.errors.SinkUnavailable` where it was not taken. ``late_s`` after
        it was published the alert ends so much later, or nobody would be told of it."""
        hold_seconds = self._hold_seconds + math.ceil(max(0.0, late_s))
        body = json.dumps([alert(anomaly, hold_seconds)], ensure_ascii=False).encode()
        await self.send(body, lambda: {"Content-Type": "application/json"})


def alert(anomaly: Anomaly, hold_seconds: int) -> dict[str, object]:
    """From the window's start until ``hold_seconds`` after its end.

    To Alertmanager an alert whose end is past is resolved, and nobody is told of it: a window is
    past when it is closed, so it is held, for longer than it takes until a lasting incident is
    told again. The windows of a replay are past all the same, and alert nobody.
    """
    end_ms = anomaly.window_start_ms + (anomaly.window_seconds + hold_seconds) * 1000
    return {
        "labels": {
            "alertname": ALERT_NAME,
            "tenant": anomaly.tenant,
            "model": anomaly.model,
            **({"region": anomaly.region} if anomaly.region else {}),
            "driver": anomaly.causes[0].driver if anomaly.causes else "unknown",
        },
        "annotations": {
            "summary": summary(anomaly),
            "cause": anomaly.causes[0].lever if anomaly.causes else "no single cause found",
            "anomaly_id": anomaly.anomaly_id,
        },
        "startsAt": rfc3339(anomaly.window_start_ms * 10**6),
        "endsAt": rfc3339(end_ms * 10**6),
    }


def summary(anomaly: Anomaly) -> str:
    """``acme on llama_8b_sim in eu-west spends $52.00 an hour, $41.00 more than expected``."""
    hours = 3600 / anomaly.window_seconds
    spends = float(anomaly.observed_usd) * hours
    change = float(anomaly.usd_per_hour)
    more = "more" if change >= 0 else "less"
    where = f" in {anomaly.region}" if anomaly.region else ""
    return (
        f"{anomaly.tenant} on {anomaly.model}{where} spends {money(spends)} an hour, "
        f"{money(abs(change))} {more} than expected"
    )

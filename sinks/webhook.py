"""Anomalies to a webhook: CloudEvents 1.0 in structured JSON, signed where there is a secret."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import random
import time
from collections.abc import Callable

from metering.cloudevents import COST_ANOMALY_TYPE, SPEC_VERSION, rfc3339
from metering.costs import Anomaly
from sinks.http_post import HttpPost, RetryPolicy, Sleep, checked_url

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"


class WebhookSink(HttpPost):
    """Delivers at least once: a receiver tells repeats by ``Idempotency-Key``, which is the
    anomaly's id, as are the event's ``id`` and ``webhook-id``.

    With a ``secret`` every try carries ``webhook-id``, ``webhook-timestamp`` and
    ``webhook-signature`` as Standard Webhooks defines them: ``v1,`` and the Base64 of the
    HMAC-SHA256 of ``id.timestamp.body``.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: bytes | None = None,
        source: str = "inference-meter/detectors",
        policy: RetryPolicy | None = None,
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            checked_url(url), RetryPolicy() if policy is None else policy, sleep, jitter
        )
        self._secret = secret
        self._source = source
        self._clock = clock

    async def deliver(self, anomaly: Anomaly) -> None:
        """Raises :class:`~metering.errors.SinkUnavailable` where it was not taken."""
        body = cloud_event(anomaly, self._source)
        await self.send(body, lambda: self._headers(anomaly.anomaly_id, body))

    def _headers(self, anomaly_id: str, body: bytes) -> dict[str, str]:
        headers = {"Content-Type": CONTENT_TYPE, "Idempotency-Key": anomaly_id}
        if self._secret is not None:
            at = int(self._clock())
            headers["webhook-id"] = anomaly_id
            headers["webhook-timestamp"] = str(at)
            headers["webhook-signature"] = signature(self._secret, anomaly_id, at, body)
        return headers


def cloud_event(anomaly: Anomaly, source: str) -> bytes:
    """The anomaly is the event's ``data``; ``time`` is the end of its window."""
    end_ms = anomaly.window_start_ms + anomaly.window_seconds * 1000
    event = {
        "specversion": SPEC_VERSION,
        "type": COST_ANOMALY_TYPE,
        "source": source,
        "id": anomaly.anomaly_id,
        "time": rfc3339(end_ms * 10**6),
        "subject": f"{anomaly.tenant}/{anomaly.model}"
        + (f"/{anomaly.region}" if anomaly.region else ""),
        "datacontenttype": "application/json",
        "data": anomaly.model_dump(mode="json"),
    }
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def signature(secret: bytes, event_id: str, timestamp_s: int, body: bytes) -> str:
    signed = f"{event_id}.{timestamp_s}.".encode() + body
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()

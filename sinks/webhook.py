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
from metering.errors import MeteringError
from sinks.http_post import HttpPost, RetryPolicy, Sleep, checked_url

PREFIX = b"whsec_"
CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"


class WebhookSink(HttpPost):
    """Delivers at least once: a receiver tells repeats by ``Idempotency-Key``, which is the
    anomaly's id, as are the event's ``id`` and ``webhook-id``.

    With a ``secret`` every try carries ``webhook-id``, ``webhook-timestamp`` and
    ``webhook-signature`` as Standard Webhooks defines them: ``v1,`` and the Base64 of the
    HMAC-SHA256 of ``id.timestamp.body``, by the key that :func:`key_of` finds in the secret.
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
        self._key = None if secret is None else key_of(secret)
        self._source = source
        self._clock = clock

    async def deliver(self, anomaly: Anomaly, late_s: float = 0.0) -> None:  # noqa: ARG002
        """Raises :class:`~metering.errors.SinkUnavailable` where it was not taken. ``late_s`` after
        it was published changes nothing."""
        body = cloud_event(anomaly, self._source)
        await self.send(body, lambda: self._headers(anomaly.anomaly_id, body))

    def _headers(self, anomaly_id: str, body: bytes) -> dict[str, str]:
        headers = {"Content-Type": CONTENT_TYPE, "Idempotency-Key": anomaly_id}
        if self._key is not None:
            at = int(self._clock())
            headers["webhook-id"] = anomaly_id
            headers["webhook-timestamp"] = str(at)
            headers["webhook-signature"] = signature(self._key, anomaly_id, at, body)
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


def key_of(secret: bytes) -> bytes:
    """The key in a secret: what ``whsec_`` is followed by is Base64, as Standard Webhooks has it;
    any other secret is the key itself.

    Raises:
        MeteringError: what follows ``whsec_`` is not Base64, or is nothing.
    """
    text = secret.strip()
    if not text.startswith(PREFIX):
        return secret
    digits = text.removeprefix(PREFIX).rstrip(b"=")  # some leave the padding out
    try:
        key = base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except ValueError:
        key = b""
    if not key:  # the secret is not shown
        raise MeteringError(
            "the webhook secret begins with whsec_, but what follows is not Base64: take it over "
            "whole from the receiver, or give a secret without that prefix"
        )
    return key


def signature(key: bytes, event_id: str, timestamp_s: int, body: bytes) -> str:
    signed = f"{event_id}.{timestamp_s}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()

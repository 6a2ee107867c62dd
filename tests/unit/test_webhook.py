"""Both alert targets against a real HTTP server on this machine; for Alertmanager, which is not
here, that server is a stand-in that checks what Alertmanager's OpenAPI document asks for.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import re
import socket
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from metering.costs import Anomaly, CauseTag
from metering.errors import MeteringError, SinkRefused, SinkUnavailable
from sinks.alertmanager import AlertmanagerSink, alert, summary
from sinks.http_post import RetryPolicy
from sinks.webhook import WebhookSink, cloud_event

LEVER = "gpu_time_per_token ▸ batch under-fill ▸ {model=llama_8b_sim, tenant=acme} ▸ 83 % of +$41/h"
ANOMALY = Anomaly(
    anomaly_id="6f1ed002ab5595859014ebf0951522d9",
    window_start_ms=1_700_000_000_000,
    window_seconds=10,
    tenant="acme",
    model="llama_8b_sim",
    score=17.5,
    score_unit="standard deviations",
    threshold=5.0,
    expected_usd=Decimal("0.03"),
    observed_usd=Decimal("0.143888888888888889"),
    usd_per_hour=Decimal("41"),
    causes=(
        CauseTag(
            driver="gpu_time_per_token",
            slice={"tenant": "acme", "model": "llama_8b_sim"},
            share=0.83,
            usd_per_hour=Decimal("34.03"),
            confidence=0.92,
            lever=LEVER,
        ),
    ),
)
FAST = RetryPolicy(attempts=4, base_delay_seconds=1.0, max_delay_seconds=3.0, timeout_seconds=0.5)


@dataclass
class Receiver:
    """Answers with ``statuses``, one after the other, then 200; keeps what it was sent."""

    statuses: list[int] = field(default_factory=list)
    retry_after: str | None = None
    hang_seconds: float = 0.0
    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        self.headers.append({k.lower(): v for k, v in request.headers.items()})
        self.paths.append(request.path)
        if self.hang_seconds:
            await asyncio.sleep(self.hang_seconds)
        status = self.statuses.pop(0) if self.statuses else 200
        extra = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        if status == 307:
            extra["Location"] = str(request.url)
        return web.Response(status=status, headers=extra)


@asynccontextmanager
async def served(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def receiving(receiver: Receiver) -> AsyncIterator[Receiver]:
    async with served(receiver.answer) as url:
        receiver.url = url
        yield receiver


class Naps:
    """A sleep that takes no time and keeps how long it was to be."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def webhook(url: str, naps: Naps, **kwargs: Any) -> WebhookSink:
    return WebhookSink(url, policy=FAST, sleep=naps, jitter=lambda: 1.0, **kwargs)


async def test_a_webhook_gets_a_cloud_event_with_an_idempotency_key() -> None:
    async with receiving(Receiver()) as receiver, webhook(receiver.url + "/hook", Naps()) as sink:
        await sink.deliver(ANOMALY)
    (headers,) = receiver.headers
    assert headers["content-type"].startswith("application/cloudevents+json")
    assert headers["idempotency-key"] == ANOMALY.anomaly_id
    assert "webhook-signature" not in headers
    event = json.loads(receiver.bodies[0])
    assert Anomaly.model_validate(event.pop("data")) == ANOMALY
    assert event == {
        "specversion": "1.0",
        "type": "inference-meter.cost.anomaly.v1",
        "source": "inference-meter/detectors",
        "id": ANOMALY.anomaly_id,
        "time": "2023-11-14T22:13:30.000000000Z",
        "subject": "acme/llama_8b_sim",
        "datacontenttype": "application/json",
    }


async def test_a_secret_signs_id_time_and_body() -> None:
    secret = b"between the two of us"
    async with (
        receiving(Receiver(statuses=[503])) as receiver,
        webhook(receiver.url, Naps(), secret=secret, clock=iter([50.9, 60.0]).__next__) as sink,
    ):
        await sink.deliver(ANOMALY)
    for headers, body, at in zip(receiver.headers, receiver.bodies, ("50", "60"), strict=True):
        assert headers["webhook-id"] == ANOMALY.anomaly_id
        assert headers["webhook-timestamp"] == at
        mac = hmac.new(secret, f"{ANOMALY.anomaly_id}.{at}.".encode() + body, hashlib.sha256)
        assert headers["webhook-signature"] == "v1," + base64.b64encode(mac.digest()).decode()


@pytest.mark.parametrize(
    "secret",
    [
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_" + base64.b64encode(bytes(range(64))).decode(),
        "whsec_" + base64.b64encode(b"unpadded, as some are").decode().rstrip("="),
    ],
    ids=["24 bytes", "64 bytes", "unpadded"],
)
@pytest.mark.parametrize("around", ["{}", "{}\n", " {} "], ids=["plain", "line break", "spaces"])
async def test_a_secret_of_standard_webhooks_is_verified_by_their_library(
    secret: str, around: str
) -> None:
    given = around.format(secret).encode()
    anomaly = ANOMALY.model_copy(update={"tenant": "Übermut 🚀"})
    async with (
        receiving(Receiver()) as receiver,
        webhook(receiver.url, Naps(), secret=given) as sink,
    ):
        await sink.deliver(anomaly)
    (headers,), (body,) = receiver.headers, receiver.bodies
    assert Webhook(secret).verify(body, headers)["data"]["tenant"] == "Übermut 🚀"
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(b"another").decode()).verify(body, headers)


async def test_a_secret_without_a_prefix_is_the_key_itself() -> None:
    async with (
        receiving(Receiver()) as receiver,
        webhook(receiver.url, Naps(), secret=b"between the two of us") as sink,
    ):
        await sink.deliver(ANOMALY)
    (headers,), (body,) = receiver.headers, receiver.bodies
    Webhook(b"between the two of us").verify(body, headers)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_===", "whsec_hunter2!", "whsec_a", "whsec_ü"])
def test_a_secret_whose_key_is_not_base64_is_refused_unshown(secret: str) -> None:
    with pytest.raises(MeteringError, match="not Base64") as caught:
        WebhookSink("http://h/", secret=secret.encode())
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
async def test_a_passing_failure_is_tried_again_with_the_same_key(status: int) -> None:
    naps = Naps()
    async with (
        receiving(Receiver(statuses=[status] * 3)) as receiver,
        webhook(receiver.url, naps) as sink,
    ):
        await sink.deliver(ANOMALY)
    assert naps.seconds == [1.0, 2.0, 3.0]
    assert len(set(receiver.bodies)) == 1
    assert [h["idempotency-key"] for h in receiver.headers] == [ANOMALY.anomaly_id] * 4


async def test_after_the_last_try_the_sink_is_unavailable() -> None:
    naps = Naps()
    async with (
        receiving(Receiver(statuses=[503] * 9)) as receiver,
        webhook(receiver.url, naps) as sink,
    ):
        with pytest.raises(SinkUnavailable, match=r"HTTP 503 at try 4 of 4"):
            await sink.deliver(ANOMALY)
    assert len(receiver.bodies) == 4
    assert len(naps.seconds) == 3


@pytest.mark.parametrize("status", [307, 400, 401, 403, 404, 410, 413, 422])
async def test_a_refusal_is_final(status: int) -> None:
    naps = Naps()
    async with (
        receiving(Receiver(statuses=[status])) as receiver,
        webhook(receiver.url, naps) as sink,
    ):
        with pytest.raises(SinkRefused, match=f"HTTP {status} at try 1 of 4"):
            await sink.deliver(ANOMALY)
    assert (len(receiver.bodies), naps.seconds) == (1, [])


@pytest.mark.parametrize(("asked", "waited"), [("2", 2.0), ("900", 3.0), ("soon", 1.0)])
async def test_retry_after_is_heeded_within_bounds(asked: str, waited: float) -> None:
    naps = Naps()
    async with (
        receiving(Receiver(statuses=[429], retry_after=asked)) as receiver,
        webhook(receiver.url, naps) as sink,
    ):
        await sink.deliver(ANOMALY)
    assert naps.seconds == [waited]


async def test_a_server_that_does_not_answer_is_given_up_in_time() -> None:
    naps = Naps()
    policy = RetryPolicy(attempts=2, timeout_seconds=0.1)
    async with (
        receiving(Receiver(hang_seconds=5)) as receiver,
        WebhookSink(receiver.url, policy=policy, sleep=naps) as sink,
    ):
        with pytest.raises(SinkUnavailable, match="Timeout"):
            await sink.deliver(ANOMALY)
    assert len(receiver.bodies) == 2


async def test_nobody_listening_is_tried_again_then_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    naps = Naps()
    async with webhook(f"http://127.0.0.1:{port}/", naps) as sink:
        with pytest.raises(SinkUnavailable, match="ClientConnectorError"):
            await sink.deliver(ANOMALY)
    assert len(naps.seconds) == 3


async def test_no_secret_of_an_address_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    secrets = ("hunter2", "T0K3N", "s3gment", "sh4red")
    async with receiving(Receiver(statuses=[503] * 4)) as receiver:
        host = receiver.url.removeprefix("http://")
        url = f"http://me:hunter2@{host}/services/s3gment?token=T0K3N"
        async with webhook(url, Naps(), secret=b"sh4red") as sink:
            with caplog.at_level(logging.DEBUG), pytest.raises(SinkUnavailable) as caught:
                await sink.deliver(ANOMALY)
        said = (
            caplog.text
            + str(caught.value)
            + repr(sink)
            + "".join(traceback.format_exception(caught.value))
        )
    assert host in said
    assert not [s for s in secrets if s in said]


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://h/hunter2", "http:///hunter2", "hunter2", "http://h:hunter2/"),
        *(f"http://{'a' * 64}/hunter2", "http://a..b/hunter2"),
    ],
)
def test_an_address_that_cannot_be_posted_to_is_refused_unshown(url: str) -> None:
    with pytest.raises(MeteringError) as caught:
        WebhookSink(url)
    assert "hunter2" not in str(caught.value)


def test_full_jitter_stays_below_the_doubling_bound() -> None:
    policy = RetryPolicy(base_delay_seconds=0.5, max_delay_seconds=3.0)
    assert [policy.delay(n, None, 1.0) for n in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert policy.delay(3, None, 0.0) == 0.0


def test_no_attempts_are_no_policy() -> None:
    with pytest.raises(MeteringError, match="attempts=0"):
        RetryPolicy(attempts=0)


def problems(alerts: Any) -> list[str]:
    """What Alertmanager's ``postableAlerts`` would refuse."""
    found = []
    for posted in alerts:
        if not posted.get("labels", {}).get("alertname"):
            found.append("no alertname")
        for name, value in (posted["labels"] | posted.get("annotations", {})).items():
            if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name) or not isinstance(value, str):
                found.append(f"label {name}={value!r}")
        if not datetime.fromisoformat(posted["startsAt"]) < datetime.fromisoformat(
            posted["endsAt"]
        ):
            found.append("ends before it starts")
    return found


def test_an_anomaly_of_a_region_says_so_in_its_alert_and_its_event() -> None:
    anomaly = ANOMALY.model_copy(update={"region": "eu-west"})
    made = json.loads(json.dumps(alert(anomaly, 60)))
    assert made["labels"]["region"] == "eu-west"
    assert summary(anomaly).startswith("acme on llama_8b_sim in eu-west spends $")
    event = json.loads(cloud_event(anomaly, "test"))
    assert event["subject"] == "acme/llama_8b_sim/eu-west"
    assert event["data"]["region"] == "eu-west"
    assert "region" not in alert(ANOMALY, 60)["labels"]  # type: ignore[operator]  # a dictionary


async def test_a_stand_in_for_alertmanager_takes_the_alert() -> None:
    posted: list[Any] = []

    async def stand_in(request: web.Request) -> web.Response:
        if (request.method, request.path) != ("POST", "/prefix/api/v2/alerts"):
            return web.Response(status=404)
        alerts = await request.json()
        if problems(alerts):
            return web.Response(status=400, text=str(problems(alerts)))
        posted.extend(alerts)
        return web.Response(status=200)

    async with (
        served(stand_in) as url,
        AlertmanagerSink(url + "/prefix/", policy=FAST, sleep=Naps()) as sink,
    ):
        await sink.deliver(ANOMALY)
    (got,) = posted
    assert got["labels"] == {
        "alertname": "CostAnomaly",
        "tenant": "acme",
        "model": "llama_8b_sim",
        "driver": "gpu_time_per_token",
    }
    assert got["annotations"]["cause"] == LEVER
    assert got["annotations"]["summary"] == (
        "acme on llama_8b_sim spends $51.80 an hour, $41.00 more than expected"
    )
    assert got["startsAt"] == "2023-11-14T22:13:20.000000000Z"
    assert got["endsAt"] == "2023-11-14T22:23:30.000000000Z"


async def test_alertmanager_that_is_away_is_tried_again() -> None:
    naps = Naps()
    async with (
        receiving(Receiver(statuses=[503])) as receiver,
        AlertmanagerSink(receiver.url, policy=FAST, sleep=naps) as sink,
    ):
        await sink.deliver(ANOMALY)
    assert receiver.paths == ["/api/v2/alerts"] * 2
    assert len(naps.seconds) == 1


async def test_an_alert_that_comes_late_ends_so_much_later() -> None:
    """Alertmanager tells nobody of an alert whose end is past."""
    async with (
        receiving(Receiver()) as receiver,
        AlertmanagerSink(receiver.url, policy=FAST, sleep=Naps()) as sink,
    ):
        await sink.deliver(ANOMALY, 3600.5)
    (got,) = json.loads(receiver.bodies[0])
    assert got["endsAt"] == "2023-11-14T23:23:31.000000000Z"


def test_an_alert_without_a_cause_and_a_fall_say_so() -> None:
    fall = ANOMALY.model_copy(update={"causes": (), "usd_per_hour": Decimal("-2.5")})
    made = json.loads(json.dumps(alert(fall, 60)))
    assert made["labels"]["driver"] == "unknown"
    assert made["annotations"]["cause"] == "no single cause found"
    assert summary(fall).endswith("$2.50 less than expected")

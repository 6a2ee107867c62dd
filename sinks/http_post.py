"""One POST that is tried until it is taken or there is no use in trying."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from metering.errors import MeteringError, SinkRefused, SinkUnavailable
from sinks.outages import OUTAGES

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter: before try ``n`` (from 1) a uniform part of
    ``base · 2ⁿ⁻¹`` (M. Brooker, "Exponential backoff and jitter", AWS 2015); a ``Retry-After`` in
    seconds is waited for instead. No wait is longer than ``max_delay_seconds``.
    """

    attempts: int = 5
    base_delay_seconds: float = 0.5
    max_delay_seconds: float = 30.0
    timeout_seconds: float = 5.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise MeteringError(f"attempts={self.attempts}: must be at least 1")

    def delay(self, attempt: int, retry_after: str | None, part: float) -> float:
        """Seconds to wait after try ``attempt`` (from 0); ``part`` is drawn from 0..1."""
        asked = seconds_of(retry_after)
        if asked is not None:
            return min(asked, self.max_delay_seconds)
        return part * min(self.base_delay_seconds * 2.0**attempt, self.max_delay_seconds)


ONE_TRY = RetryPolicy(attempts=1)
"""For those who try again by themselves."""
PASSING = frozenset((408, 425, 429))
"""Statuses below 500 that say: later."""


def seconds_of(retry_after: str | None) -> float | None:
    """``Retry-After`` in seconds; ``None`` where there is none, or it is a date."""
    if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    return None


def checked_url(url: str) -> URL:
    """Raises :class:`MeteringError` for what can't be posted to, without showing its secrets."""
    try:
        parsed = URL(url)
    except ValueError:
        # Not chained: the reason quotes the address, and that may hold a password.
        raise MeteringError("an address to post to is not a URL") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise MeteringError(f"can't post to {shown(parsed)}: want http(s)://host/…")
    try:
        parsed.host.encode("idna")
    except UnicodeError:  # one part of it is empty, or has more than 63 characters
        raise MeteringError(f"can't post to {shown(parsed)}: its host can't be a name") from None
    return parsed


def shown(url: URL) -> str:
    """An address for logs and errors. User, password, query and path stay out: many services
    keep their token in the path.
    """
    if not url.host:
        return "an address without a host"
    port = "" if url.explicit_port is None else f":{url.explicit_port}"
    return f"{url.scheme}://{url.host}{port}" + ("/…" if url.path not in ("", "/") else "")


class HttpPost:
    """Posts bodies to one URL. At least once: an answer that got lost is asked for again."""

    def __init__(
        self,
        url: URL,
        policy: RetryPolicy,
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.url = url
        self._policy = policy
        self._sleep = sleep
        self._jitter = jitter
        self._session: aiohttp.ClientSession | None = None

    async def send(self, body: bytes, headers: Callable[[], Mapping[str, str]]) -> None:
        """2xx is taken. Connection errors, time-outs, 408, 425, 429 and 5xx are tried again;
        anything else, redirects too, is final. ``headers`` are made anew for every try.

        Raises:
            SinkUnavailable: after the last try.
            SinkRefused: at once, where trying again is of no use.
        """
        for attempt in range(self._policy.attempts):
            retry_after: str | None = None
            try:
                async with self._client().post(
                    self.url, data=body, headers=headers(), allow_redirects=False
                ) as answer:
                    if 200 <= answer.status < 300:
                        OUTAGES.recovered(self)
                        return
                    problem = f"HTTP {answer.status}"
                    final = answer.status not in PASSING and answer.status < 500
                    retry_after = answer.headers.get("Retry-After")
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                problem, final = type(exc).__name__, False
            if final or attempt + 1 == self._policy.attempts:
                tries = self._policy.attempts
                detail = problem if tries == 1 else f"{problem} at try {attempt + 1} of {tries}"
                error = SinkRefused if final else SinkUnavailable
                # Not chained: an error of the connection quotes the address.
                raise error(shown(self.url), 1, detail, seconds_of(retry_after)) from None
            wait = self._policy.delay(attempt, retry_after, self._jitter())
            OUTAGES.away(shown(self.url), self, f"{shown(self.url)}: {problem}")
            await self._sleep(wait)

    def _client(self) -> aiohttp.ClientSession:
        """Made at the first use, as it belongs to the running loop."""
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._policy.timeout_seconds)
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown(self.url)})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

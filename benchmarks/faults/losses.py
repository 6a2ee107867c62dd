"""What the usage log says about itself, at the shipper's ``/metrics``."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass

import aiohttp

from metering.errors import StackError
from streams.stack.stack import Stack

_TIMEOUT = aiohttp.ClientTimeout(total=2.0)
_POLL_S = 0.1
_TOLD_EVERY_S = 0.5
"""How often the shipper renews its metrics."""


@dataclass(frozen=True, slots=True)
class Losses:
    """Since the log was made; and what waits in it just now, and for how long."""

    dropped_requests: int = 0
    dropped_batches: int = 0
    unwritten_requests: int = 0
    unwritten_batches: int = 0
    lag_bytes: int = 0
    lag_s: float = 0.0

    def __sub__(self, before: Losses) -> Losses:
        return Losses(
            self.dropped_requests - before.dropped_requests,
            self.dropped_batches - before.dropped_batches,
            self.unwritten_requests - before.unwritten_requests,
            self.unwritten_batches - before.unwritten_batches,
            self.lag_bytes,
            self.lag_s,
        )

    @property
    def requests(self) -> int:
        return self.dropped_requests + self.unwritten_requests

    @property
    def batches(self) -> int:
        return self.dropped_batches + self.unwritten_batches


async def read_losses(stack: Stack) -> Losses | None:
    """``None``: the shipper does not answer just now."""
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.get(stack.endpoints.metrics["shipper"]) as answer,
        ):
            text = await answer.text()
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None
    told = {name: float(value) for name, value in re.findall(r"^(meter_\w+) (\S+)$", text, re.M)}
    if not told.get("meter_usage_log_max_bytes"):
        return None

    def whole(name: str) -> int:
        return int(told[f"meter_{name}"])

    return Losses(
        whole("usage_log_dropped_requests_total"),
        whole("usage_log_dropped_batches_total"),
        whole("usage_log_unwritten_requests_total"),
        whole("usage_log_unwritten_batches_total"),
        whole("shipper_lag_bytes"),
        told["meter_shipper_lag_seconds"],
    )


async def losses_of(stack: Stack, timeout_s: float) -> Losses:
    """Raises StackError: the shipper did not answer in time."""
    deadline = time.monotonic() + timeout_s
    while (found := await read_losses(stack)) is None:
        if time.monotonic() > deadline:
            raise StackError(f"the shipper has not told of its log for {timeout_s:g} s")
        await asyncio.sleep(_POLL_S)
    return found


async def until_caught_up(stack: Stack, timeout_s: float) -> None:
    """Until nothing waits in the log but what has just come; or the time is over."""
    deadline = time.monotonic() + timeout_s
    await asyncio.sleep(2 * _TOLD_EVERY_S)  # What is told is of now, and not of before.
    while time.monotonic() < deadline:
        found = await read_losses(stack)
        if found is not None and found.lag_s < _TOLD_EVERY_S:
            return
        await asyncio.sleep(_POLL_S)

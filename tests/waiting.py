"""Waiting in tests for what other processes and tasks bring about."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any


async def until(
    holds: Callable[[], bool] | Callable[[], Awaitable[bool]], timeout_s: float = 120.0
) -> None:
    """Asked twenty times a second; fails the test after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = holds()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < deadline, f"it did not happen within {timeout_s:g} s"
        await asyncio.sleep(0.05)


def eventually(
    holds: Callable[[], bool], *while_running: Future[Any], timeout_s: float = 120.0
) -> None:
    """`until`, for tests without an event loop. Fails also once all of ``while_running`` ended."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert not while_running or not all(future.done() for future in while_running)
        assert time.monotonic() < deadline, f"it did not happen within {timeout_s:g} s"
        time.sleep(0.05)

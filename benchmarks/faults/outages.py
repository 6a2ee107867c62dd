"""The broker frozen; the broker or ClickHouse away; for as long as a context is open."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from metering.errors import StackError
from streams.stack.groups import kill_group
from streams.stack.stack import Stack

_POLL_S = 0.01
_ANEW_S = 45.0
"""What is held at its start is begun anew before its supervisor takes it for hung."""


@asynccontextmanager
async def frozen(stack: Stack) -> AsyncIterator[None]:
    """SIGSTOP: connections stay open, and nobody answers on them."""
    group = stack.endpoints.pids["kafka"]
    kill_group(group, signal.SIGSTOP)
    try:
        yield
    finally:
        kill_group(group, signal.SIGCONT)


@asynccontextmanager
async def away(stack: Stack, name: str = "kafka") -> AsyncIterator[None]:
    """Killed, and whatever the supervisor starts in its place is held before it listens."""
    holding = asyncio.create_task(_hold_down(stack, name))
    try:
        await asyncio.sleep(0)
        yield
    finally:
        holding.cancel()
        with suppress(asyncio.CancelledError):
            await holding
        group = stack.endpoints.pids.get(name)
        if group is not None:
            kill_group(group, signal.SIGCONT)


async def _hold_down(stack: Stack, name: str) -> None:
    held, since_s = 0, -_ANEW_S
    while True:
        pid = stack.endpoints.pids.get(name, 0)
        if pid and pid != held and held:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
            held = pid
        elif pid == held or not held:
            now_s = time.monotonic()
            if now_s - since_s >= _ANEW_S:
                with suppress(StackError):
                    held, since_s = stack.kill(name), now_s
        await asyncio.sleep(_POLL_S)

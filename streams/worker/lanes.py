"""Each partition at its own pace: what comes for a busy one waits, and is handled in one go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from streams.worker.intake import Take

MOST_BYTES = 16 * 1024**2
"""Of the messages that wait. One take more may come on top."""


class Lanes:
    """``handle`` is called for a partition's takes, one call at a time in each partition.

    No more than ``most`` messages or ``MOST_BYTES`` wait: then ``put`` waits until there are fewer.
    """

    def __init__(self, handle: Callable[[int, list[Take]], Awaitable[None]], most: int) -> None:
        self._handle = handle
        self._most = most
        self._waiting: dict[int, list[Take]] = {}
        self._running: dict[int, asyncio.Task[Any]] = {}
        self._has_room = asyncio.Event()
        self.was_full = False
        """More came than could be handled; whoever has seen it may take it back."""

    async def put(self, take: Take) -> None:
        self._waiting.setdefault(take.partition, []).append(take)
        if take.partition not in self._running:
            task = asyncio.create_task(self._run(take.partition))
            self._running[take.partition] = task
        while self._is_full():
            self.was_full = True
            self._has_room.clear()
            await self._has_room.wait()

    def _is_full(self) -> bool:
        waiting = [take for takes in self._waiting.values() for take in takes]
        count = sum(len(take.messages) for take in waiting)
        return count >= self._most or sum(take.size for take in waiting) >= MOST_BYTES

    async def _run(self, partition: int) -> None:
        try:
            while takes := self._waiting.pop(partition, []):
                self._has_room.set()
                await self._handle(partition, takes)
        finally:
            del self._running[partition]

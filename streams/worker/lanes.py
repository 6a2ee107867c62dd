"""Each partition at its own pace: what comes for a busy one waits, and is handled in one go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from streams.worker.intake import Take


class Lanes:
    """``handle`` is called for a partition's takes, one call at a time in each partition.

    No more than ``most`` messages wait: then ``put`` waits until there are fewer.
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
        while self._count() >= self._most:
            self.was_full = True
            self._has_room.clear()
            await self._has_room.wait()

    def _count(self) -> int:
        return sum(len(take.messages) for takes in self._waiting.values() for take in takes)

    async def _run(self, partition: int) -> None:
        try:
            while takes := self._waiting.pop(partition, []):
                self._has_room.set()
                await self._handle(partition, takes)
        finally:
            del self._running[partition]

"""Few large writes from many who write: what comes while one is under way goes into the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Together(Generic[T]):
    """``write`` is called in a thread, for one list at a time; what it raises, all of them get.
    ``within_s`` is how long the first of a list waits for others."""

    def __init__(self, write: Callable[[list[T]], None], within_s: float = 0.0) -> None:
        self._write = write
        self._within_s = within_s
        self._waiting: list[tuple[T, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def __call__(self, item: T) -> None:
        """Returns when it is written."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        await done

    async def _write_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._within_s)
            taken, self._waiting = self._waiting, []
            problem: Exception | None = None
            try:
                await asyncio.to_thread(self._write, [item for item, _ in taken])
            except Exception as exc:  # noqa: BLE001  # theirs, whatever it is
                problem = exc
            for _, done in taken:
                if done.done():
                    continue
                if problem is None:
                    done.set_result(None)
                else:
                    done.set_exception(problem)

"""The partitions that this worker has: made when they are needed, made again when they are lost."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from metering.errors import SinkUnavailable
from sinks.outages import OUTAGES
from streams.worker.transaction import Lost

RETRY_FIRST_S = 0.2
RETRY_MOST_S = 5.0


class Closing(Protocol):
    async def close(self) -> None: ...


T = TypeVar("T", bound=Closing)


class Owned(Generic[T]):
    """``make`` begins with what is stored of a partition, and may raise SinkUnavailable."""

    def __init__(
        self,
        make: Callable[[int], Awaitable[T]],
        is_mine: Callable[[int], bool],
    ) -> None:
        self._make = make
        self._is_mine = is_mine
        self._ended = False
        self._held: dict[int, T] = {}
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def use(self, partition: int, do: Callable[[T], Awaitable[None]]) -> bool:
        """One at a time. When the partition is lost in the middle it is made and done again, from
        what is stored. ``False``: the partition is not ours any more, and it may not be done."""
        delay_s = RETRY_FIRST_S
        async with self._turns[partition]:
            while self._is_mine(partition) and not self._ended:
                try:
                    held = self._held.get(partition)
                    if held is None:
                        self._held[partition] = await self._make(partition)
                        continue  # by now it may be another worker's, or the end may have come
                    await do(held)
                except (Lost, SinkUnavailable) as exc:
                    if not self._ended:
                        self._failed(partition, exc)
                    await self._drop(partition)
                    await asyncio.sleep(delay_s)
                    delay_s = min(delay_s * 2, RETRY_MOST_S)
                else:
                    OUTAGES.recovered((self, partition))
                    return True
            OUTAGES.gave_up((self, partition))
            await self._drop(partition)
            return False

    def held(self, partition: int) -> T | None:
        """What is made of the partition, whatever is being done with it; to look at only."""
        return self._held.get(partition)

    def is_busy(self, partition: int) -> bool:
        return self._turns[partition].locked()

    async def let_go(self) -> None:
        """Of what is another worker's by now."""
        for partition in [p for p in self._held if not self._is_mine(p)]:
            async with self._turns[partition]:
                await self._drop(partition)

    async def close(self) -> None:
        """Whatever is being done fails; nothing is done from then on."""
        self._ended = True
        await asyncio.gather(*(self._drop(partition) for partition in list(self._held)))

    def _failed(self, partition: int, exc: Lost | SinkUnavailable) -> None:
        """All partitions fail where Kafka is away, and each is tried again."""
        if isinstance(exc, SinkUnavailable):
            OUTAGES.failed((self, partition), exc)
        else:
            OUTAGES.away(
                "Kafka", (self, partition), f"Kafka: partition {partition} begins again: {exc}"
            )

    async def _drop(self, partition: int) -> None:
        held = self._held.pop(partition, None)
        if held is not None:
            await held.close()

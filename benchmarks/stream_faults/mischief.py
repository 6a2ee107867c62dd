"""Messages in another order, and some of them again. Pure."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")
HELD = 48
"""So many messages are held, and any of them may be the next."""
NEAR, FAR = 20, 4_000
"""How many messages later a message comes again, at most."""
AGAIN_SHARE = 0.06


@dataclass(slots=True)
class Mischief(Generic[T]):
    """``put`` what is to be sent, ``take`` what is next; ``again`` counts the copies made."""

    drawn: random.Random
    again: int = 0
    taken: int = 0
    _held: list[T] = field(default_factory=list)
    _later: list[tuple[int, int, T]] = field(default_factory=list)
    _ticket: count[int] = field(default_factory=count)

    def put(self, message: T) -> None:
        self._held.append(message)
        if self.drawn.random() < AGAIN_SHARE:
            self.repeat(message)

    def repeat(self, message: T) -> None:
        """A copy, near or far; the message itself may never have been put."""
        far = self.drawn.random() < 0.5
        due = self.taken + self.drawn.randrange(1, FAR if far else NEAR)
        heapq.heappush(self._later, (due, next(self._ticket), message))
        self.again += 1

    def take(self, *, all_of_it: bool = False) -> T | None:
        """``None``: what is held is to be held for longer, unless ``all_of_it`` is wanted."""
        if self._later and (self._later[0][0] <= self.taken or (all_of_it and not self._held)):
            self.taken += 1
            return heapq.heappop(self._later)[2]
        if len(self._held) > (0 if all_of_it else HELD):
            self.taken += 1
            place = self.drawn.randrange(len(self._held))
            self._held[place], self._held[-1] = self._held[-1], self._held[place]
            return self._held.pop()
        return None

    @property
    def waiting(self) -> int:
        return len(self._held) + len(self._later)

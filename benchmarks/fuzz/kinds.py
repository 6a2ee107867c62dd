"""What a kind of message is: how it is made, how often, and what must become of it."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from benchmarks.fuzz.batches import Batch, Part, event
from metering.cloudevents import USAGE_BATCH_TYPE

T = TypeVar("T")
Header = tuple[str, bytes | None]
RIGHT: tuple[Header, ...] = (
    ("ce_specversion", b"1.0"),
    ("ce_type", USAGE_BATCH_TYPE.encode()),
    ("ce_source", b"fuzz"),
    ("ce_id", b"0"),
    ("content-type", b"application/json"),
)
SOURCES, STRANGERS = 16, 100_000
MODELS = tuple(f"fuzz-{n}" for n in range(4))
TENANTS = tuple(f"tenant-{n}" for n in range(12))


class Fate(StrEnum):
    """``LATE`` is stored and on the dead-letter topic; all others are one or the other."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    LATE = "late"
    MALFORMED = "malformed"
    INVALID = "invalid"
    WRONG_TYPE = "wrong-type"
    FUTURE = "from-the-future"

    @property
    def is_stored(self) -> bool:
        return self in (Fate.STORED, Fate.LATE)

    @property
    def is_refused(self) -> bool:
        """Whether there is a letter; its reason is then the fate's value."""
        return self not in (Fate.STORED, Fate.DUPLICATE)


class OddName(str):
    """A header's name that is not UTF-8 on its way, and that is read as it stands here."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return str.encode(self, encoding, errors).replace(b"\\xff", b"\xff")


class Made(NamedTuple):
    """A message; ``batch`` is what must be stored of it. A ``packed`` one goes compressed,
    an ``odd`` one has an :class:`OddName`."""

    value: bytes | None
    headers: Sequence[Header] = RIGHT
    key: bytes | None = b"k"
    batch: Batch | None = None
    packed: bool = False
    odd: bool = False


@dataclass(slots=True)
class Draw:
    """What makers draw from. ``now_ns`` is the epoch time of the messages being made."""

    random: random.Random
    now_ns: int
    next_sequence: Counter[str] = field(default_factory=Counter)
    made: Counter[str] = field(default_factory=Counter)
    recent: deque[bytes] = field(default_factory=lambda: deque(maxlen=1000))
    """Whole events that must have been stored."""

    def turn(self, name: str) -> int:
        """How often it was asked for before, so that all places and values come up in turn."""
        self.made[name] += 1
        return self.made[name] - 1

    def pick(self, name: str, of: Sequence[T]) -> T:
        return of[self.turn(name) % len(of)]

    def batch(self, source: str = "", **changes: Any) -> Batch:
        """A sound one that nobody has sent. Its parts have the same GPU time."""
        drawn = self.random
        if not source:
            source = f"host/boot/{drawn.randrange(SOURCES)}/fuzz_0"
        sequence = self.next_sequence[source]
        self.next_sequence[source] += 1
        gpu_ns = drawn.randrange(1, 10**9)
        parts = tuple(
            Part(drawn.choice(TENANTS), drawn.randrange(5000), drawn.randrange(900), gpu_ns)
            for _ in range(drawn.randrange(1, 4))
        )
        made = Batch(source, sequence, drawn.choice(MODELS), self.now_ns, parts)
        return made._replace(**changes) if changes else made

    def stranger(self) -> Batch:
        """What is made wrong afterwards; it has a source of its own, of very many."""
        name = f"stranger/{self.turn('strangers') % STRANGERS}"
        gpu_ns = self.random.randrange(1000, 10**9)
        part = Part("acme", self.random.randrange(10, 5000), 20, gpu_ns)
        return Batch(name, self.random.randrange(2**40), MODELS[0], self.now_ns, (part,))

    def wrong(self) -> bytes:
        """The event of a stranger."""
        return event(self.stranger())


Make = Callable[[Draw], Made]


@dataclass(frozen=True, slots=True)
class Kind:
    """``weight`` among its like; 0: one comes after every ``every`` messages, at most ``most``."""

    name: str
    fate: Fate
    make: Make
    weight: int = 0
    every: int = 0
    most: int = 0


KINDS: dict[str, Kind] = {}


def kind(
    name: str, fate: Fate, *, weight: int = 0, every: int = 0, most: int = 10**9
) -> Callable[[Make], Make]:
    """Makes the function a kind; for some cheap to make ``weight``, for large ones ``every``."""

    def add(make: Make) -> Make:
        if name in KINDS:
            raise ValueError(f"kind {name!r} is there twice")
        KINDS[name] = Kind(name, fate, make, weight, every, most)
        return make

    return add

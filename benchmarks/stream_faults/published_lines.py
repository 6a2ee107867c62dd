"""Are the lines on ``cost.requests.v1`` those that were expected, and all of them?"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from pydantic_core import from_json

from benchmarks.stream_faults.committed import read_topic
from benchmarks.stream_faults.expected import Expected
from benchmarks.stream_faults.journal import Array
from benchmarks.stream_faults.world import BATCH_SIZE, TENANTS
from streams.settings import Settings
from streams.spread import lines_in
from streams.topics import COST_REQUESTS

MOST_EXAMPLES = 10
_FIELDS = (
    "source", "sequence", "position", "input_tokens", "output_tokens", "gpu_ns", "input_gpu_ns",
    "cost_usd", "input_cost_usd",
)  # fmt: skip


@dataclass(slots=True)
class Published:
    lines: int = 0
    missing: int = 0
    unknown: int = 0
    wrong: int = 0
    twice: int = 0
    """Copies of lines beyond the first; no fault."""
    examples: list[str] = field(default_factory=list)


class LineCheck:
    """Every line of ``cost.requests.v1`` against what is expected, whichever copy comes."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._found = Published()
        self._copies = np.zeros(len(expected.gpu_ns), np.int32)
        batches = expected.emitted.batches
        self._places: dict[str, Array] = {}
        for number, source in enumerate(expected.emitted.sources):
            own = np.flatnonzero(batches["source"] == number)
            sequences = batches["sequence"][own].astype(np.int64)
            places = np.full(int(sequences.max(initial=-1)) + 1, -1, np.int64)
            places[sequences] = own
            self._places[source.name] = places

    def take(self, value: bytes) -> None:
        message = from_json(value)
        tenant = TENANTS.index(message["tenant"]) if message["tenant"] in TENANTS else -1
        rows = [(self._place(*row[:3]), *row[3:]) for row in lines_in(message, _FIELDS)]
        known = [row for row in rows if row[0] >= 0]
        self._found.lines += len(rows)
        self._found.unknown += len(rows) - len(known)
        if not known:
            return
        places, *told = (list(column) for column in zip(*known, strict=True))
        own = np.array(places)
        np.add.at(self._copies, own, 1)
        expected, requests = self._expected, self._expected.emitted.requests[own]
        money = [_money(column) for column in told[4:]]
        right = requests["tenant"] == tenant
        for there, want in (
            (told[0], requests["input_tokens"]),
            (told[1], requests["output_tokens"]),
            (told[2], expected.gpu_ns[own]),
            (told[3], expected.input_gpu_ns[own]),
            (money[0], np.where(expected.priced[own], expected.cost[own], -1)),
            (money[1], np.where(expected.priced[own], expected.input_cost[own], -1)),
        ):
            right &= np.array(there) == want
        if not right.all():
            self._found.wrong += int((~right).sum())
            if len(self._found.examples) < MOST_EXAMPLES:
                self._found.examples.append(f"wrong on its topic: {known[int(np.argmin(right))]}")

    def result(self) -> Published:
        self._found.missing = int((self._copies == 0).sum())
        self._found.twice = int(np.maximum(self._copies - 1, 0).sum())
        return self._found

    def _place(self, source: str, sequence: int, position: int) -> int:
        places = self._places.get(source)
        if places is None or not 0 <= sequence < len(places) or not 0 <= position < BATCH_SIZE:
            return -1
        batch = int(places[sequence])
        return batch if batch < 0 else batch * BATCH_SIZE + position


def _money(column: list[str | None]) -> list[int]:
    """In attodollars; -1 where there is none."""
    return [-1 if text is None else int(text.replace(".", "")) for text in column]


async def read_lines(settings: Settings, expected: Expected) -> Published:
    check = LineCheck(expected)
    async for record in read_topic(settings, COST_REQUESTS):
        check.take(record.value)
    return check.result()

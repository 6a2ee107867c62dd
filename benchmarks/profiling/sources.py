"""What a take costs where many sources send: its decision, and what is saved of the ledger."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from benchmarks.stream.events import messages, price_book
from metering.ledger import Ledger, Policy, take
from metering.ledger_records import changed_records
from metering.messages import Message
from metering.prices import parse_price_book

TAKE = 500
FEW, MANY = 20, 10_000
_IDENTITY = re.compile(rb'"source":"[^"]*","sequence":\d+')


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one take, the median of some."""

    decide_ms: float
    save_ms: float
    saved_bytes: int

    @property
    def ms(self) -> float:
        return self.decide_ms + self.save_ms


def of_sources(count: int, takes: int, *, seed: int) -> Cost:
    """Takes of ``TAKE`` batches with a request each, every one with a broker's stamp of its own,
    from ``count`` sources in turn that have all sent within the last seconds."""
    book = parse_price_book(price_book(), "book")
    ledger, policy = Ledger(), Policy()
    arrivals = _arrivals(count, count + takes * TAKE, seed)
    take(ledger, [next(arrivals) for _ in range(count)], book, policy, time.time_ns())
    changed_records(ledger)
    decide_ms, save_ms, saved_bytes = [], [], []
    for _ in range(takes):
        came = [next(arrivals) for _ in range(TAKE)]
        begun_ns = time.perf_counter_ns()
        take(ledger, came, book, policy, time.time_ns())
        decided_ns = time.perf_counter_ns()
        records = changed_records(ledger)
        save_ms.append((time.perf_counter_ns() - decided_ns) / 1e6)
        decide_ms.append((decided_ns - begun_ns) / 1e6)
        saved_bytes.append(sum(len(key) + len(value or b"") for key, value in records))
    return Cost(median(decide_ms), median(save_ms), round(median(saved_bytes)))


def _arrivals(sources: int, count: int, seed: int) -> Iterator[Message]:
    now_ns = time.time_ns()
    drawn = messages(count, 1, seed=seed, until_ns=now_ns)
    for offset, record in enumerate(drawn):
        value = _renamed(record.value or b"", offset % sources, offset // sources)
        yield Message(offset, now_ns + offset * 1_000, value, tuple(record.headers))


def _renamed(value: bytes, source: int, sequence: int) -> bytes:
    return _IDENTITY.sub(b'"source":"source-%05d","sequence":%d' % (source, sequence), value, 1)

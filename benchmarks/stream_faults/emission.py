"""Usage as it comes about: into usage logs, and beside them straight into the topic.

How much may be emitted is told from outside (``allowed``), so that kills fall evenly over the run.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.stream_faults.drawn import Drawn
from benchmarks.stream_faults.injector import message
from benchmarks.stream_faults.journal import BATCH, FAILED, LATE, LOGGED, Array, Journal
from benchmarks.stream_faults.messages import event, head_of, record
from benchmarks.stream_faults.mischief import AGAIN_SHARE, Mischief
from benchmarks.stream_faults.world import BATCH_SIZE, LENGTHS, MODELS, NS, REGIONS, Source, misses
from metering.wal import source_folder
from streams.publisher import Record
from streams.shipper.ship import event_of
from triton_models.emitter.log import UsageLog

TICK_S = 0.05
FAILED_SHARE = 0.02
LAGGING_SHARE = 0.03
LONGEST_LAG_S = 45.0
LATE_EVENTS = 24
LATE_FROM_SHARE = 0.15
"""Before that a partition may have no watermark yet that an event can be late for."""
SEGMENT_BYTES = 1024**2


@dataclass(slots=True)
class Writer:
    """One source; ``log`` is ``None`` where its events go straight into the topic."""

    number: int
    source: Source
    head: bytes
    log: UsageLog | None
    sequence: int = 0

    def next_sequence(self) -> int:
        if self.log is not None:
            return self.log.reserve()
        self.sequence += 1
        return self.sequence - 1


class Emission:
    def __init__(
        self,
        *,
        requests: int,
        boots: int,
        seed: int,
        log_dir: Path,
        journal: Journal,
        mischief: Mischief[Record],
    ) -> None:
        self.batches = -(-requests // BATCH_SIZE)
        self.late = 0
        self.lagging = 0
        self._log_dir = log_dir
        self._journal = journal
        self._mischief = mischief
        self._random = random.Random(seed)
        self._drawn = Drawn(seed)
        self._boot_every = -(-self.batches // boots)
        self._late_every = max(1, int(self.batches * (1 - LATE_FROM_SHARE)) // LATE_EVENTS)
        self._straight = [self._writer(f"edge-{n:02}", *pair, None) for n, pair in _pairs()]
        self._logged: list[Writer] = []
        self.boots = 0

    @property
    def emitted(self) -> int:
        """Requests."""
        return self._journal.written * BATCH_SIZE

    @property
    def requests(self) -> int:
        return self.batches * BATCH_SIZE

    def emit(self, most: int) -> int:
        """Up to ``most`` batches, and no more than there are to be."""
        many = min(most, self.batches - self._journal.written)
        for _ in range(many):
            if self._journal.written >= self.boots * self._boot_every:
                self._boot()
            number = self._journal.written
            late = number >= self.batches * LATE_FROM_SHARE and number % self._late_every == 0
            if late or self._random.random() < 0.5:
                self._inject(late)
            else:
                self._log()
        return many

    def close(self) -> None:
        for writer in self._logged:
            if writer.log is not None:
                writer.log.close()

    def _boot(self) -> None:
        """The servers begin anew, in other processes: their sources have other names."""
        self.close()
        self._logged = [self._writer(f"node-{n:02}", *pair, self._log_dir) for n, pair in _pairs()]
        self.boots += 1

    def _writer(self, host: str, model: str, region: str, log_dir: Path | None) -> Writer:
        boot = 0 if log_dir is None else self.boots
        source = Source(f"{host}/boot-{boot}/1/{model}_0", model, region)
        log = None
        if log_dir is not None:
            folder = source_folder(log_dir, source.name)
            log = UsageLog(folder, segment_bytes=SEGMENT_BYTES)
        return Writer(self._journal.source(source), source, head_of(source), log)

    def _log(self) -> None:
        writer = self._random.choice(self._logged)
        now_ns = time.time_ns()
        sequence, gpu_ns, status, requests = (
            writer.next_sequence(),
            self._drawn.whole_ns(),
            *self._any(),
        )
        requests = requests.copy()
        requests["gpu_ns"] = requests["input_gpu_ns"] = 0
        flags = LOGGED | (FAILED if status == "error" else 0)
        self._note(
            writer, requests,
            sequence=sequence, flags=flags, end_ns=now_ns, sent_ns=now_ns, gpu_ns=gpu_ns,
        )  # fmt: skip
        payload = record(
            writer.head,
            writer.source,
            sequence,
            requests,
            gpu_ns=gpu_ns,
            end_ns=now_ns,
            status=status,
        )
        assert writer.log is not None  # noqa: S101  # these have one
        writer.log.append(sequence, payload, BATCH_SIZE)
        if self._random.random() < AGAIN_SHARE:
            # Beside the shipper, perhaps before it.
            self._mischief.repeat(message(writer.source.name, sequence, event_of(payload)))

    def _inject(self, late: bool) -> None:
        writer = self._random.choice(self._straight)
        now_ns = time.time_ns()
        end_ns, flags = now_ns, 0
        if late:
            end_ns, flags = self._long_ago(now_ns), LATE
            self.late += 1
        elif self._random.random() < LAGGING_SHARE:
            end_ns -= int(self._random.uniform(1.0, LONGEST_LAG_S) * NS)
            self.lagging += 1
        sequence, (status, requests) = writer.next_sequence(), self._any()
        gpu_ns = int(requests["gpu_ns"].sum())
        flags |= FAILED if status == "error" else 0
        self._note(
            writer, requests,
            sequence=sequence, flags=flags, end_ns=end_ns, sent_ns=now_ns, gpu_ns=gpu_ns,
        )  # fmt: skip
        value = event(
            writer.source, sequence, requests, gpu_ns=gpu_ns, end_ns=end_ns, status=status
        )
        self._mischief.put(message(writer.source.name, sequence, value))

    def _any(self) -> tuple[str, Array]:
        failed = self._random.random() < FAILED_SHARE
        return "error" if failed else "ok", self._drawn.batch()

    def _long_ago(self, now_ns: int) -> int:
        """So that it is certain which windows it misses; it misses the shortest for certain."""
        while True:
            hours = (3.0, 6.0) if self._random.random() < 0.5 else (49.0, 72.0)
            end_ns = now_ns - int(self._random.uniform(*hours) * 3_600 * NS)
            if all(misses(end_ns, now_ns, seconds) is not None for seconds in LENGTHS):
                return end_ns

    def _note(self, writer: Writer, requests: Array, **fields: int) -> None:
        """``fields`` are those of ``BATCH`` but the source."""
        batch = np.zeros((), BATCH)
        batch["source"] = writer.number
        for name, value in fields.items():
            batch[name] = value
        self._journal.note(batch, requests)


class Throttle:
    """How many batches a tick may emit: at a pace, while not too much is under way."""

    def __init__(self, per_s: float, most_behind: int) -> None:
        self.allowed = 0
        """Requests that may have been emitted by now."""
        self.stored = 0
        """Requests that are stored, as far as is known."""
        self._per_s = per_s
        self._most_behind = most_behind

    async def run(self, emission: Emission) -> None:
        """Until everything is emitted."""
        last, owed = time.monotonic(), 0.0
        while emission.emitted < emission.requests:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            owed = min(owed + (now - last) * self._per_s, self._per_s)
            last = now
            room = min(self.allowed, self.stored + self._most_behind) - emission.emitted
            many = int(min(owed, room)) // BATCH_SIZE
            if many > 0:
                owed -= emission.emit(many) * BATCH_SIZE


def _pairs() -> list[tuple[int, tuple[str, str]]]:
    return list(enumerate(product(MODELS, REGIONS)))

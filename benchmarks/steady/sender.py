"""``python -m benchmarks.steady.sender JSON``: sends usage at a steady rate, until its time is over
or SIGTERM comes. The messages are those that a shipper sends, their event time is now.

Without ``log`` nothing is kept of what was sent, so that a long run is not a matter of memory.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from benchmarks.steady import sent
from benchmarks.steady.templates import Template, templates
from metering.cloudevents import USAGE_BATCH_TYPE, encode_headers
from streams.publisher import MAX_REQUEST_BYTES
from streams.settings import Settings
from streams.topics import USAGE_BATCHES

TICK_S = 0.01
"""A shipper looks that often for what is new."""
SCATTER = 2_654_435_761
"""Odd, so that each message has another word in its ids."""


@dataclass(frozen=True, slots=True)
class Load:
    """``first_sequence`` is what each source begins with: a source never repeats one."""

    requests_per_s: float
    batch_size: int
    tenants: int
    seconds: float
    first_sequence: int = 0
    seed: int = 1
    log: str | None = None

    @property
    def messages_per_s(self) -> float:
        return self.requests_per_s / self.batch_size

    def templates(self) -> list[Template]:
        return templates(self.tenants, self.batch_size, self.seed)

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class Sender:
    """One idempotent producer, as the shipper's; acknowledgements are not waited for one by one."""

    def __init__(self, load: Load, settings: Settings) -> None:
        self._load = load
        self._settings = settings
        self._rows: list[tuple[int, ...]] = []
        self._failed: BaseException | None = None
        self._stopping = False
        self.count = 0

    def stop(self) -> None:
        self._stopping = True

    async def run(self) -> None:
        """Raises whatever the broker refused a message with."""
        load = self._load
        numbered = enumerate(_round_and_round(load.templates()))
        producer = AIOKafkaProducer(
            **self._settings.kafka_client(),
            enable_idempotence=True,
            compression_type="zstd",
            linger_ms=1,
            max_batch_size=256 * 1024,
            max_request_size=MAX_REQUEST_BYTES,
        )
        await producer.start()
        gc.freeze()
        gc.disable()  # a collection would be a pause of the load
        waiting: set[asyncio.Future[Any]] = set()
        print("sending", flush=True)
        try:
            begun_ns = time.time_ns()
            step_ns = 1e9 / load.messages_per_s
            end = int(load.seconds * load.messages_per_s)
            while self.count < end and not self._stopping and self._failed is None:
                due_ns = begun_ns + int(self.count * step_ns)
                ahead_s = (due_ns - time.time_ns()) / 1e9
                if ahead_s > 0:
                    await asyncio.sleep(ahead_s + TICK_S)
                future = await self._send(producer, *next(numbered), due_ns)
                waiting.add(future)
                future.add_done_callback(waiting.discard)
                self.count += 1
            await producer.flush()
        finally:
            await producer.stop()
        if self._failed is not None:
            raise self._failed
        if load.log is not None:
            sent.save(Path(load.log), self._rows)

    async def _send(
        self, producer: AIOKafkaProducer, number: int, item: tuple[int, int, Template], due_ns: int
    ) -> asyncio.Future[Any]:
        place, turn, template = item
        sequence = self._load.first_sequence + turn
        end_ns = time.time_ns()
        name = template.source.name
        future: asyncio.Future[Any] = await producer.send(
            USAGE_BATCHES,
            key=name.encode(),
            value=template.filled(sequence, end_ns, number * SCATTER),
            headers=encode_headers(USAGE_BATCH_TYPE, name, str(sequence), None),
        )
        future.add_done_callback(
            lambda done: self._acknowledged(done, place, sequence, due_ns, end_ns)
        )
        return future

    def _acknowledged(
        self, done: asyncio.Future[Any], place: int, sequence: int, due_ns: int, end_ns: int
    ) -> None:
        if (failed := done.exception()) is not None:
            self._failed = failed
        elif self._load.log is not None:
            told = done.result()
            stamps = told.timestamp, due_ns, end_ns, time.time_ns()
            self._rows.append((place, sequence, told.partition, told.offset, *stamps))


def _round_and_round(found: list[Template]) -> Iterator[tuple[int, int, Template]]:
    """(place, number of its source's message, template), for ever. All sources have their turn as
    often as each other."""
    turns: dict[str, int] = {}
    while True:
        for place, template in enumerate(found):
            name = template.source.name
            turns[name] = turns.get(name, -1) + 1
            yield place, turns[name], template


async def main() -> None:
    sender = Sender(Load(**json.loads(sys.argv[1])), Settings.from_env())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, sender.stop)
    await sender.run()
    print(f"sent {sender.count}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())

"""Events straight into the usage topic, by an idempotent producer, whatever becomes of Kafka."""

from __future__ import annotations

import asyncio

from benchmarks.stream_faults.mischief import Mischief
from metering.cloudevents import USAGE_BATCH_TYPE, encode_headers
from metering.errors import SinkUnavailable
from streams.publisher import Publisher, Record
from streams.settings import Settings
from streams.topics import USAGE_BATCHES

AT_ONCE = 100
IDLE_S = 0.02
RETRY_S = 0.3


class Injector:
    """Sends in the order of ``mischief``; a send whose outcome is unknown is sent again whole."""

    def __init__(self, settings: Settings, mischief: Mischief[Record]) -> None:
        self._publisher = Publisher(settings)
        self._mischief = mischief
        self.sent = 0
        self.failures = 0
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Nothing more is put: ``run`` returns once everything is sent."""
        self._ending.set()

    async def run(self) -> None:
        try:
            while True:
                ending = self._ending.is_set()
                records = self._next(ending)
                if records:
                    await self._send(records)
                elif ending:
                    return
                else:
                    await asyncio.sleep(IDLE_S)
        finally:
            await self._publisher.stop()

    def _next(self, ending: bool) -> list[Record]:
        records: list[Record] = []
        while len(records) < AT_ONCE:
            record = self._mischief.take(all_of_it=ending)
            if record is None:
                break
            records.append(record)
        return records

    async def _send(self, records: list[Record]) -> None:
        while True:
            try:
                await self._publisher.publish(records)
            except SinkUnavailable:
                self.failures += 1
                await asyncio.sleep(RETRY_S)
            else:
                self.sent += len(records)
                return


def message(source: str, sequence: int, value: bytes) -> Record:
    """With the key and the headers that a shipper gives it."""
    headers = encode_headers(USAGE_BATCH_TYPE, source, str(sequence), None)
    return Record(USAGE_BATCHES, source.encode(), value, headers)

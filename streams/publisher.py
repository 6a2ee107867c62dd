"""Events out to Kafka: one idempotent producer, and nothing is done before all is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from metering.capacity import CapacityHeartbeat
from metering.cloudevents import (
    COST_ANOMALY_TYPE,
    COST_REQUEST_TYPE,
    COST_WINDOW_TYPE,
    USAGE_CAPACITY_TYPE,
    USAGE_RECONCILIATION_TYPE,
    USAGE_REFUSED_TYPE,
    Headers,
    around_id,
    encode_headers,
)
from metering.costs import Anomaly
from metering.errors import SinkUnavailable
from metering.ledger import Refusal
from metering.lines import CostLines
from metering.reconciliation import Verdict
from metering.tenant_costs import tenant_values
from metering.window_rows import WindowRows, values_of
from metering.windows import Cohort, WindowKey
from sinks.outages import OUTAGES
from streams.partitioner import partition_of
from streams.settings import Settings
from streams.topics import (
    COST_ANOMALIES,
    COST_REQUESTS,
    COST_WINDOWS,
    LARGEST_FRAME_BYTES,
    USAGE_BATCHES,
    USAGE_CAPACITY,
    USAGE_DLQ,
    USAGE_RECONCILIATION,
)
from streams.zstd import use_quick_zstd

EVENT_SOURCE = "inference-meter/worker"
DETECTOR_SOURCE = "inference-meter/detector"
RECONCILER_SOURCE = "inference-meter/reconciler"
MOST_LETTER_BYTES = LARGEST_FRAME_BYTES + 64 * 1024
MOST_HEADERS_BYTES = 256 * 1024
"""What a dead letter keeps of a message: the topic must take it, whatever came. What is larger
was packed, or has more headers than a message needs."""
MAX_REQUEST_BYTES = 20 * 1024 * 1024
"""Above the largest that any topic takes, so that the broker decides and not the client."""
PRODUCER: dict[str, Any] = {
    # At the level that the client has for it, lz4 takes three times as long and saves less.
    "compression_type": "zstd",
    "linger_ms": 1,
    "max_batch_size": 1024 * 1024,
    "max_request_size": MAX_REQUEST_BYTES,
    "partitioner": partition_of,
}
_HEADER_OVERHEAD_BYTES = 20
"""Two lengths, and the prefix of its name."""


class Record(NamedTuple):
    topic: str
    key: bytes
    value: bytes | None
    headers: Headers
    partition: int | None = None
    """``None``: by its key."""


def lines_records(lines: CostLines, partition: int, offsets: tuple[int, int]) -> Iterator[Record]:
    """Keyed by tenant, so that one tenant's costs keep their order. ``offsets`` are the first and
    the last of the usage messages that the lines come from."""
    first, last = offsets
    for part, (tenant, value) in enumerate(tenant_values(lines)):
        headers = encode_headers(
            COST_REQUEST_TYPE, EVENT_SOURCE, f"{partition}@{first}-{last}/{part}", None
        )
        yield Record(COST_REQUESTS, tenant.encode(), value, headers)


@lru_cache(16_384)
def _joined(names: tuple[str, ...]) -> bytes:
    """So that no two tuples become one text: a slash within a name is ``%2F``, a percent sign
    ``%25``."""
    return "/".join(n.replace("%", "%25").replace("/", "%2F") for n in names).encode()


def window_keys(key: WindowKey, cohorts: Sequence[Cohort]) -> list[bytes]:
    """Each of this window and cohort alone: the topic is compacted, so two that share a key would
    lose one of them."""
    before = b"%d/%d/" % (key.seconds, key.start_s * 1000)
    return [before + _joined(cohort) for cohort in cohorts]


def window_records(rows: WindowRows) -> Iterator[Record]:
    values = values_of(rows)
    for told in rows.told:
        version = f"@{told.counted_to}{'' if told.final else '~'}".encode()
        before, behind = around_id(COST_WINDOW_TYPE, EVENT_SOURCE, told.key.end_ns)
        for key in window_keys(told.key, told.cohorts):
            headers = [*before, ("ce_id", key + version), *behind]
            yield Record(COST_WINDOWS, key, next(values), headers)


def anomaly_record(anomaly: Anomaly) -> Record:
    return Record(
        COST_ANOMALIES,
        anomaly.tenant.encode(),
        anomaly.model_dump_json().encode(),
        encode_headers(
            COST_ANOMALY_TYPE,
            DETECTOR_SOURCE,
            anomaly.anomaly_id,
            (anomaly.window_start_ms + anomaly.window_seconds * 1000) * 10**6,
        ),
    )


def heartbeat_record(beat: CapacityHeartbeat) -> Record:
    return Record(
        USAGE_CAPACITY,
        beat.host.encode(),
        beat.model_dump_json().encode(),
        encode_headers(USAGE_CAPACITY_TYPE, beat.source, str(beat.sequence), beat.time_ns),
    )


def verdict_record(verdict: Verdict) -> Record:
    """The same heartbeat may be judged twice, after a restart; the id is then the same."""
    name = _joined(verdict.key)
    return Record(
        USAGE_RECONCILIATION,
        name,
        verdict.model_dump_json().encode(),
        encode_headers(
            USAGE_RECONCILIATION_TYPE,
            RECONCILER_SOURCE,
            f"{name.decode()}@{verdict.time_ns}",
            verdict.time_ns,
        ),
    )


def refused_heartbeat_record(refusal: Refusal, partition: int) -> Record:
    """As :func:`refusal_record`, of a message of the capacity topic, which the letter names."""
    return refusal_record(refusal, partition, RECONCILER_SOURCE, USAGE_CAPACITY)


def refusal_record(
    refusal: Refusal, partition: int, source: str = EVENT_SOURCE, topic: str = USAGE_BATCHES
) -> Record:
    """The message as it came, byte for byte, with the reason in its headers. Of one that is too
    large for a letter the beginning, and headers that say how much there was."""
    offset = f"{partition}@{refusal.message.offset}"
    event_id = offset if topic == USAGE_BATCHES else f"{topic}/{offset}"
    headers = encode_headers(USAGE_REFUSED_TYPE, source, event_id, None)
    if topic != USAGE_BATCHES:
        headers.append(("meter_topic", topic.encode()))
    headers += [
        ("meter_reason", refusal.reason.encode()),
        ("meter_detail", refusal.detail.encode(errors="replace")),
    ]
    value, room = refusal.message.value, MOST_HEADERS_BYTES
    if len(value) > MOST_LETTER_BYTES:
        headers.append(("meter_value_bytes", str(len(value)).encode()))
        value = value[:MOST_LETTER_BYTES]
    left_out = 0
    for name, given in refusal.message.headers:
        took = 4 * len(name) + len(given) + _HEADER_OVERHEAD_BYTES
        if took > room:
            left_out += 1
            continue
        room -= took
        headers.append((f"original_{name}", given))
    if left_out:
        headers.append(("meter_headers_left_out", str(left_out).encode()))
    return Record(USAGE_DLQ, b"", value, headers)


class Publisher:
    """Start before use. ``publish`` returns when every record is acknowledged by all replicas."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._starting: asyncio.Task[AIOKafkaProducer] | None = None
        self._is_stopped = False

    async def start(self) -> None:
        """Raises SinkUnavailable: no broker answers, or the publisher was stopped."""
        await self._started()

    async def stop(self) -> None:
        """Stop for good: whoever publishes from then on gets SinkUnavailable, and no new producer
        is started. One that is just being started is stopped too."""
        self._is_stopped = True
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await asyncio.wait({starting})
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def _started(self) -> AIOKafkaProducer:
        """The one producer. Whoever comes while it is being started waits for the same."""
        if self._is_stopped:
            raise SinkUnavailable(f"Kafka at {self._settings.kafka}", 0, "the publisher has ended")
        if self._producer is not None:
            return self._producer
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        starting = self._starting
        try:
            # Whoever gives up waiting does not take it from the others.
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():
                detail = "the publisher has ended"
                raise SinkUnavailable(f"Kafka at {self._settings.kafka}", 0, detail) from None
            raise
        finally:
            if starting.done() and self._starting is starting:
                self._starting = None

    async def _start(self) -> AIOKafkaProducer:
        use_quick_zstd()
        producer = AIOKafkaProducer(
            **self._settings.kafka_client(), **PRODUCER, enable_idempotence=True
        )
        try:
            await producer.start()
        except BaseException as exc:
            with contextlib.suppress(KafkaError):
                await producer.stop()
            if isinstance(exc, KafkaError):
                raise SinkUnavailable(f"Kafka at {self._settings.kafka}", 0, repr(exc)) from exc
            raise
        self._producer = producer
        return producer

    async def _replace(self, producer: AIOKafkaProducer) -> None:
        """Stop one that has failed, and no other: another caller may have replaced it already."""
        current = self._producer
        if current is None or current is not producer:
            return
        self._producer = None
        with contextlib.suppress(KafkaError):
            await current.stop()

    async def publish(self, records: Sequence[Record]) -> None:
        """Raises SinkUnavailable: any of the records may be missing; publish them all again.

        A producer that has failed is replaced: an idempotent one may be unable to go on.
        """
        if not records:
            return
        producer = await self._started()
        futures: list[asyncio.Future[object]] = []
        try:
            for r in records:
                sent = await producer.send(
                    r.topic,
                    key=r.key or None,
                    value=r.value,
                    headers=r.headers,
                    partition=r.partition,
                )
                futures.append(sent)
            await asyncio.gather(*futures)
            OUTAGES.recovered(self, "Kafka")
        except KafkaError as exc:
            await asyncio.gather(*futures, return_exceptions=True)
            await self._replace(producer)
            raise SinkUnavailable(
                f"Kafka at {self._settings.kafka}", len(records), repr(exc)
            ) from exc

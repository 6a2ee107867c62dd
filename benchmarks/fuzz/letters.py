"""Is each refused message a dead letter, once, as it came, with the reason that was expected?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.fuzz.journal import Journal, headers_sum, value_sum
from streams.settings import Settings
from streams.topics import USAGE_DLQ

Headers = Sequence[tuple[str, bytes | None]]
_ORIGINAL = "original_"
_FETCH_BYTES = 4 * 1024 * 1024
_MOST_EXAMPLES = 20


@dataclass(slots=True)
class Letters:
    """``examples`` say what was wrong with the first of those that were."""

    right: int = 0
    other_reason: int = 0
    altered: int = 0
    repeated: int = 0
    unexpected: int = 0
    """Letters of what should be stored, or of what nobody sent."""
    missing: int = 0
    cut: int = 0
    """Too large for a letter, in value or headers, and so kept in part."""
    by_reason: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def complain(self, text: str) -> None:
        if len(self.examples) < _MOST_EXAMPLES:
            self.examples.append(text)


async def read_letters(settings: Settings, journal: Journal) -> Letters:
    """All that lie there now; no more of them are in memory than one fetch brings."""
    found, seen = Letters(), bytearray(len(journal))
    consumer = AIOKafkaConsumer(
        **settings.kafka_client(),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_FETCH_BYTES,
    )
    await consumer.start()
    try:
        partition = TopicPartition(USAGE_DLQ, 0)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        while await consumer.position(partition) < end:
            for records in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
                for record in records:
                    judge(found, seen, journal, record.value or b"", record.headers)
    finally:
        await consumer.stop()
    for offset, times in enumerate(seen):
        if not times and journal.kind_at(offset).fate.is_refused:
            found.missing += 1
            found.complain(f"no letter of offset {offset}: {journal.kind_at(offset).name}")
    return found


def judge(
    found: Letters, seen: bytearray, journal: Journal, value: bytes, headers: Headers
) -> None:
    """``seen`` has for each offset how many letters there were so far."""
    own = {name: given or b"" for name, given in headers if not name.startswith(_ORIGINAL)}
    reason, detail = own["meter_reason"].decode(), own["meter_detail"].decode(errors="replace")
    partition, _, text = own["ce_id"].decode().partition("@")
    offset = int(text)
    found.by_reason[reason] += 1
    if partition != "0" or not 0 <= offset < len(journal):
        found.unexpected += 1
        found.complain(f"a letter of {partition}@{offset}, which nobody sent")
        return
    kind = journal.kind_at(offset)
    said = f"offset {offset}, {kind.name}: {reason}: {detail[:200]}"
    seen[offset] = min(seen[offset] + 1, 255)
    found.cut += "meter_value_bytes" in own or "meter_headers_left_out" in own
    if seen[offset] > 1:
        found.repeated += 1
        found.complain(f"again, {said}")
    elif not kind.fate.is_refused:
        found.unexpected += 1
        found.complain(f"should be {kind.fate}: {said}")
    elif reason != kind.fate:
        found.other_reason += 1
        found.complain(f"should be {kind.fate}: {said}")
    elif not _as_it_came(
        journal.sums_at(offset), value, headers, in_part="meter_headers_left_out" in own
    ):
        found.altered += 1
        found.complain(f"altered: {said}")
    else:
        found.right += 1


def _as_it_came(sums: tuple[int, int], value: bytes, headers: Headers, in_part: bool) -> bool:
    """``sums`` are those of what was sent; headers that are there in part are not compared."""
    if value_sum(value) != sums[0]:
        return False
    kept = [(n.removeprefix(_ORIGINAL), v) for n, v in headers if n.startswith(_ORIGINAL)]
    return in_part or headers_sum(kept) == sums[1]

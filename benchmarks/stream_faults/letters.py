"""Are the dead letters those of what was far too late, and no others?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from benchmarks.stream_faults.committed import read_topic
from benchmarks.stream_faults.expected import Expected
from benchmarks.stream_faults.journal import LATE
from streams.settings import Settings
from streams.topics import USAGE_DLQ

MOST_EXAMPLES = 10


@dataclass(slots=True)
class Letters:
    """``late`` were expected to be; ``others`` are letters that nobody should have got."""

    late: int = 0
    missing: int = 0
    repeated: int = 0
    others: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


async def read_letters(settings: Settings, expected: Expected) -> Letters:
    given = [
        {name: bytes(value or b"").decode() for name, value in record.headers}
        async for record in read_topic(settings, USAGE_DLQ)
    ]
    return sort_letters(given, expected)


def sort_letters(given: list[dict[str, str]], expected: Expected) -> Letters:
    """``given`` are the headers of each letter."""
    emitted = expected.emitted
    wanted = {
        (emitted.sources[batch["source"]].name, str(batch["sequence"]))
        for batch in emitted.batches[(emitted.batches["flags"] & LATE) > 0]
    }
    found, seen = Letters(), set()
    for headers in given:
        identity = headers.get("original_ce_source", ""), headers.get("original_ce_id", "")
        reason = headers.get("meter_reason", "none")
        if reason != "late" or identity not in wanted:
            found.others[reason] += 1
            if len(found.examples) < MOST_EXAMPLES:
                found.examples.append(f"letter: {identity} {reason}: {headers.get('meter_detail')}")
            continue
        found.repeated += identity in seen
        seen.add(identity)
    found.late, found.missing = len(seen), len(wanted - seen)
    return found

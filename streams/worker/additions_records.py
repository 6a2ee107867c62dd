"""Additions on their way from one partition's pricing to the totals of all cohorts."""

from __future__ import annotations

from metering.additions import NO_ADDITIONS, Additions, Mark, encode, split
from metering.cloudevents import USAGE_REFUSED_TYPE, encode_headers
from metering.windows import WINDOW_SECONDS
from streams.publisher import EVENT_SOURCE, Record
from streams.topics import ADDITIONS, USAGE_DLQ


def additions_records(mark: Mark, additions: Additions, ways: int) -> list[Record]:
    """One for each partition of the topic: the mark is for all of them."""
    parts = split(additions, ways) if len(additions.cohorts) else [NO_ADDITIONS] * ways
    return [Record(ADDITIONS, b"", encode(mark, part), [], way) for way, part in enumerate(parts)]


def late_letter(mark: Mark, late: Additions, partition: int, offset: int) -> Record:
    """Of additions that came for windows which are gone: from a partition of the usage topic that
    was far behind all others."""
    lengths = max(late.level.tolist())
    headers = encode_headers(
        USAGE_REFUSED_TYPE, EVENT_SOURCE, f"additions/{partition}@{offset}", None
    )
    detail = (
        f"{len(late.cohorts)} cohorts' sums of usage partition {mark.partition}, up to offset "
        f"{mark.counted_to}: stored, but not counted in their windows of up to "
        f"{WINDOW_SECONDS[lengths - 1]} s, which are gone"
    )
    headers += [("meter_reason", b"late"), ("meter_detail", detail.encode())]
    return Record(USAGE_DLQ, b"", encode(mark, late), headers)

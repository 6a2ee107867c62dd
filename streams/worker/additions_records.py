"""Additions on their way from one partition's pricing to the totals of all cohorts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from metering.additions import NO_ADDITIONS, Additions, Mark, encode, split
from metering.cloudevents import USAGE_REFUSED_TYPE, encode_headers
from metering.usage import shown
from metering.window_sums import MOST_USD
from metering.windows import WINDOW_SECONDS
from streams.publisher import EVENT_SOURCE, Record
from streams.topics import ADDITIONS, USAGE_DLQ

TOO_LARGE = "too-large"


MOST_ROWS = 2_048
"""In a record: with the longest names, of characters that are escaped, it has some 11 MB."""


def pieces_of(additions: Additions, ways: int) -> list[list[Additions]]:
    """The additions in as many pieces as they need, at least one: each has a part for each
    partition of the topic, none of more than ``MOST_ROWS``."""
    if not len(additions.cohorts):
        return [[NO_ADDITIONS] * ways]
    parts = split(additions, ways)
    most = max(len(part.cohorts) for part in parts)
    if most <= MOST_ROWS:
        return [parts]
    return [
        [part.take(range(first, min(first + MOST_ROWS, len(part.cohorts)))) for part in parts]
        for first in range(0, most, MOST_ROWS)
    ]


def additions_records(mark: Mark, pieces: Sequence[Sequence[Additions]]) -> list[Record]:
    """One for each partition of the topic and piece. Each piece has a sequence number of its own,
    the last one the mark's; the partition has come as far as the mark says with the last."""
    records = []
    for before_last, parts in zip(range(len(pieces) - 1, -1, -1), pieces, strict=True):
        own = mark
        if before_last:
            own = replace(mark, sequence=mark.sequence - before_last, watermark_ns=0, closing_ns=0)
        records += [
            Record(ADDITIONS, b"", encode(own, part), [], way) for way, part in enumerate(parts)
        ]
    return records


def late_letter(mark: Mark, late: Additions, partition: int, offset: int) -> Record:
    """Of additions that came for windows which are gone: from a partition of the usage topic that
    was far behind all others."""
    lengths = max(late.level.tolist())
    where = f"their windows of up to {WINDOW_SECONDS[lengths - 1]} s, which are gone"
    return _letter("late", mark, late, where, f"additions/{partition}@{offset}")


def too_large_letter(
    mark: Mark, parts: Additions, seconds: int, partition: int, offset: int
) -> Record:
    """Of additions that would have taken a sum beyond what a window's row can hold."""
    tenant, model, region = parts.cohorts[0]
    where = (
        f"their windows of {seconds} s, where a count would exceed 2^64 - 1 or a cost reach "
        f"{MOST_USD} USD (first: tenant={shown(tenant)} model={shown(model)} "
        f"region={shown(region)}); check what their servers count"
    )
    return _letter(TOO_LARGE, mark, parts, where, f"additions/{partition}@{offset}/{seconds}")


def _letter(reason: str, mark: Mark, parts: Additions, where: str, event_id: str) -> Record:
    headers = encode_headers(USAGE_REFUSED_TYPE, EVENT_SOURCE, event_id, None)
    detail = (
        f"{len(parts.cohorts)} cohorts' sums of usage partition {mark.partition}, up to offset "
        f"{mark.counted_to}: stored, but not counted in {where}"
    )
    headers += [("meter_reason", reason.encode()), ("meter_detail", detail.encode())]
    return Record(USAGE_DLQ, b"", encode(mark, parts), headers)

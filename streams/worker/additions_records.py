"""Additions on their way from one partition's pricing to the totals of all cohorts."""

from __future__ import annotations

from metering.additions import NO_ADDITIONS, Additions, Mark, encode, split
from metering.cloudevents import USAGE_REFUSED_TYPE, encode_headers
from metering.usage import shown
from metering.window_sums import MOST_USD
from metering.windows import WINDOW_SECONDS
from streams.publisher import EVENT_SOURCE, Record
from streams.topics import ADDITIONS, USAGE_DLQ

TOO_LARGE = "too-large"


def additions_records(mark: Mark, additions: Additions, ways: int) -> list[Record]:
    """One for each partition of the topic: the mark is for all of them."""
    parts = split(additions, ways) if len(additions.cohorts) else [NO_ADDITIONS] * ways
    return [Record(ADDITIONS, b"", encode(mark, part), [], way) for way, part in enumerate(parts)]


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

"""Does the latest row of every window on ``cost.windows.v1`` say what ClickHouse's says?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from benchmarks.stream_faults.committed import read_topic
from benchmarks.stream_faults.expected import SUMS, Window
from benchmarks.stream_faults.stored_windows import Row, atto
from benchmarks.stream_faults.world import COHORT
from streams.settings import Settings
from streams.topics import COST_WINDOWS


async def read_latest_windows(settings: Settings) -> tuple[dict[Window, Row], int]:
    """The latest row of every key of ``cost.windows.v1``, and how many rows there are."""
    latest: dict[Window, Row] = {}
    rows = 0
    async for record in read_topic(settings, COST_WINDOWS):
        rows += 1
        if record.value is not None:
            key, row = window_of(json.loads(record.value, parse_float=Decimal))
            latest[key] = row
    return latest, rows


def window_of(document: Mapping[str, Any]) -> tuple[Window, Row]:
    names = [
        name.removesuffix("_atto") + "_usd" if name.endswith("_atto") else name for name in SUMS
    ]
    sums = tuple(
        atto(Decimal(document[name])) if name.endswith("_usd") else int(document[name])
        for name in names
    )
    key = (
        document["window_seconds"],
        document["window_start_ms"] // 1000,
        *(document[column] for column in COHORT),
    )
    return key, Row(sums, 0, document["final"], document["counted_to"])


def apart(latest: Mapping[Window, Row], stored: Mapping[Window, Row]) -> list[str]:
    """Windows whose latest row on the topic says something else than the one in ClickHouse, or has
    counted further: ClickHouse is written first."""
    return [
        f"{key}: {latest.get(key)} on its topic, {stored.get(key)} stored"
        for key in sorted(latest.keys() | stored.keys())
        if not _agree(latest.get(key), stored.get(key))
    ]


def _agree(told: Row | None, stored: Row | None) -> bool:
    return (
        told is not None
        and stored is not None
        and (told.sums, told.other, told.final) == (stored.sums, stored.other, stored.final)
        and told.counted_to <= stored.counted_to
    )


def behind(latest: Mapping[Window, Row], stored: Mapping[Window, Row]) -> int:
    """Windows whose row in ClickHouse has the higher ``counted_to``: a worker wrote it and died
    before it published it, and the next one, at other boundaries, had no more to say."""
    return sum(
        row.counted_to < stored[key].counted_to for key, row in latest.items() if key in stored
    )

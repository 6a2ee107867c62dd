"""A stream of messages from a seed: nineteen of twenty are bad, the rest must be stored."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import accumulate

from benchmarks.fuzz import (  # noqa: F401  # each adds its kinds
    column_kinds,
    field_kinds,
    good_kinds,
    header_kinds,
    large_kinds,
    law_kinds,
    record_kinds,
    text_kinds,
)
from benchmarks.fuzz.kinds import KINDS, Draw, Fate, Kind, Made

GOOD_SHARE = 0.05
_DRAWN_AT_ONCE = 1000


def messages(count: int, seed: int, clock_ns: Callable[[], int]) -> Iterator[tuple[Kind, Made]]:
    """The first is sound, so that what is from long ago is late. ``clock_ns`` is asked now and
    then; everything else comes from the seed."""
    drawn = random.Random(seed)
    draw = Draw(drawn, clock_ns())
    kinds = list(KINDS.values())
    good = [k for k in kinds if k.weight and not _is_bad(k)]
    bad = [k for k in kinds if k.weight and _is_bad(k)]
    large = [k for k in kinds if k.every]
    weights = [
        *(k.weight * GOOD_SHARE / sum(g.weight for g in good) for k in good),
        *(k.weight * (1 - GOOD_SHARE) / sum(b.weight for b in bad) for k in bad),
    ]
    cumulated = list(accumulate(weights))
    yield KINDS["sound"], KINDS["sound"].make(draw)
    sent = 1
    while sent < count:
        draw.now_ns = clock_ns()
        for kind in drawn.choices([*good, *bad], cum_weights=cumulated, k=_DRAWN_AT_ONCE):
            for due in (*(rare for rare in large if _is_due(rare, sent)), kind):
                if sent < count:
                    yield due, due.make(draw)
                    sent += 1


def _is_due(rare: Kind, sent: int) -> bool:
    return sent % rare.every == 0 and sent // rare.every <= rare.most


def _is_bad(kind: Kind) -> bool:
    return kind.fate not in (Fate.STORED, Fate.DUPLICATE, Fate.LATE)

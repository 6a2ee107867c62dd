"""Frames of several sources in the order of event time, as they would have come undelayed.

After an outage each source has a backlog. Sent one after the other, the first backlog would move
the stream's watermark past the events of the next one, and those would come too late for their
windows.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Sequence

from metering.wal import Frame

_END = re.compile(rb'"end_epoch_ns":\s*(\d+)')


def in_time_order(sources: Iterable[tuple[str, Sequence[Frame]]]) -> list[tuple[str, Frame]]:
    """(source, frame) by the batches' ends; the frames of one source keep their order.

    A frame that does not tell its end comes right after the one before it.
    """
    merged = heapq.merge(*(_timed(name, frames) for name, frames in sources), key=lambda t: t[0])
    return [(name, frame) for _, name, frame in merged]


def _timed(source: str, frames: Sequence[Frame]) -> Iterator[tuple[int, str, Frame]]:
    reached_ns = 0
    for frame in frames:
        found = _END.search(frame.payload)
        reached_ns = max(reached_ns, 0 if found is None else int(found.group(1)))
        yield reached_ns, source, frame

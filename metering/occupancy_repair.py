"""What whoever has a board's lock takes up for the others, and makes good for those who could not.

Pure but for the question who is alive; nothing is written here.
"""

from __future__ import annotations

from typing import NamedTuple

from metering import occupancy
from metering.occupancy_file import BoardFile
from metering.occupancy_layout import Table


class _Event(NamedTuple):
    """What happened in slot ``n``; at the same time, in the order of ``what``."""

    at_ns: int
    what: int
    n: int
    batches: int = 1


_SUMS, _BEGIN_TOLD, _BEGIN, _OVER, _LOST = range(5)


def settle(table: Table, now_ns: int) -> dict[int, int]:
    """Take up what instances have put beside the state: sums of batches that were alone; and, in
    the order of time, begins, and ends that found the lock taken. What comes after the others have
    moved on counts as of their last event; a begin that lies after ``now_ns`` is left for later.

    Returns by slot when a batch that has told of itself ended, as the device counts it.
    """
    events = [_Event(stamp_ns, _BEGIN, n) for stamp_ns, n in table.began()]
    ended = [_Event(stamp_ns, _LOST, n) for stamp_ns, n in table.ended()]
    for n, count, sum_ns, over_ns in table.alone():
        ended += _told(table, n, count, sum_ns, over_ns)
    # What has ended is not told again once the table is written.
    now_ns = max([now_ns, *(event.at_ns for event in ended)])
    over = {}
    for event in sorted(events + ended):
        if event.what != _BEGIN or event.at_ns <= now_ns:
            _take_up(table, event)
        if event.what in (_SUMS, _OVER):
            over[event.n] = table.load.at_ns
    return over


def _told(table: Table, n: int, count: int, sum_ns: int, over_ns: int) -> list[_Event]:
    """What the sums of slot ``n`` say that was not known: batches one after the other, ``sum_ns``
    in all.

    Another instance may have come while the last of them ran; so that one, where its begin is
    known, is a batch as any other. Beside those before it nothing ran. Where the first is known to
    run, they count as one stretch from its begin on; the pauses between them are not known.
    """
    slot = table.slot(n)
    batches, told_ns = count - slot.alone, sum_ns - slot.alone_ns
    table.put(n, slot._replace(alone=count, alone_ns=sum_ns))
    events = []
    began_ns = table.stamp_ns(n)
    is_last = began_ns != slot.posted_ns and over_ns - told_ns <= began_ns <= over_ns
    if is_last:
        batches, told_ns = batches - 1, told_ns - (over_ns - began_ns)
        events = [_Event(began_ns, _BEGIN_TOLD, n), _Event(over_ns, _OVER, n)]
    if batches and slot.began_ns is not None:
        events.append(_Event(slot.posted_ns + told_ns, _SUMS, n, batches))
    elif batches:
        table.load, slot = occupancy.add_alone(table.load, table.slot(n), batches, told_ns)
        table.put(n, slot)
    return events


def _take_up(table: Table, event: _Event) -> None:
    at_ns, what, n, batches = event
    slot = table.slot(n)
    if what in (_BEGIN, _BEGIN_TOLD):
        if slot.posted_ns == at_ns:
            return
        if slot.began_ns is not None:  # Not even its end could be told.
            table.load, slot = occupancy.abandon(table.load, slot, at_ns)
        if slot.opened_ns is not None and (what == _BEGIN_TOLD or at_ns > table.over_ns(n)):
            table.load, slot = occupancy.begin(table.load, slot, at_ns)
        slot = slot._replace(posted_ns=at_ns)
    elif slot.began_ns is None or slot.posted_ns > at_ns:
        return
    elif what == _LOST:
        table.load, slot = occupancy.abandon(table.load, slot, at_ns)
    else:
        table.load, slot, _ = occupancy.end(table.load, slot, at_ns, batches)
    table.put(n, slot)


def bury(table: Table, file: BoardFile, now_ns: int, but: int = -1) -> bool:
    """Free the slots, ``but`` one, whose processes are gone; whether there were any.

    When they went is not known; what ran there counts until now.
    """
    dead = [
        n
        for n in range(table.used)
        if n != but and table.slot(n).opened_ns is not None and not file.is_held(n)
    ]
    for n in dead:
        retire(table, n, now_ns)
    return bool(dead)


def retire(table: Table, n: int, now_ns: int) -> None:
    """Free a slot. What it has counted stays in the device's own counts."""
    slot = table.slot(n)
    if slot.began_ns is not None:
        table.load, _ = occupancy.abandon(table.load, slot, now_ns)
    table.put(
        n,
        occupancy.FREE._replace(posted_ns=slot.posted_ns, alone=slot.alone, alone_ns=slot.alone_ns),
    )

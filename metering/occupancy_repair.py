"""What whoever has a board's lock takes up for the others, and makes good for those who could not.

Pure but for the question who is alive; nothing is written here.
"""

from __future__ import annotations

from metering import occupancy
from metering.occupancy_file import BoardFile
from metering.occupancy_layout import Table


def settle(table: Table, now_ns: int) -> None:
    """Take up what instances have put beside the state: sums of batches that were alone; and, in
    the order of time, begins, and ends that found the lock taken. What comes after the others have
    moved on counts as of their last event; a begin that lies after ``now_ns`` is left for later.

    A batch that has told of itself in its sums, while another instance came and took it for
    running, ends where it was over; then its own sums say nothing more.
    """
    began, ended = table.began(), table.ended()
    events = [(stamp_ns, _BEGIN, n) for stamp_ns, n in began]
    events += [(stamp_ns, _LOST, n) for stamp_ns, n in ended]
    for n, count, sum_ns, over_ns in table.alone():
        slot = table.slot(n)
        if slot.began_ns is None:
            table.load, slot = occupancy.add_alone(table.load, slot, count, sum_ns, over_ns)
            table.put(n, slot)
        else:
            table.put(n, slot._replace(alone=count, alone_ns=sum_ns))
            events.append((over_ns, _OVER, n))
    if ended:  # Which are gone once the table is written.
        now_ns = max(now_ns, *(stamp_ns for stamp_ns, _ in ended))
    for stamp_ns, what, n in sorted(events):
        if what != _BEGIN or stamp_ns <= now_ns:
            _take_up(table, stamp_ns, what, n)


_BEGIN, _OVER, _LOST = range(3)


def _take_up(table: Table, stamp_ns: int, what: int, n: int) -> None:
    slot = table.slot(n)
    if what == _BEGIN:
        if slot.began_ns is not None:  # Not even its end could be told.
            table.load, slot = occupancy.abandon(table.load, slot, stamp_ns)
        if slot.opened_ns is not None and stamp_ns > table.over_ns(n):
            table.load, slot = occupancy.begin(table.load, slot, stamp_ns)
        slot = slot._replace(posted_ns=stamp_ns)
    elif slot.began_ns is None or slot.posted_ns > stamp_ns:
        return
    elif what == _OVER:
        table.load, slot, _ = occupancy.end(table.load, slot, stamp_ns)
    else:
        table.load, slot = occupancy.abandon(table.load, slot, stamp_ns)
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

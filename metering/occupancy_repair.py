"""What whoever has a board's lock makes good for those who could not.

Pure but for the question who is alive; nothing is written here.
"""

from __future__ import annotations

from metering import occupancy
from metering.occupancy_file import BoardFile
from metering.occupancy_layout import Table


def settle(table: Table, now_ns: int) -> None:
    """Take up what instances have put beside the state, in the order of time: a batch begins, or,
    where its own end found the lock taken, ends. What comes after the others have moved on counts
    as of their last event; a begin that lies after ``now_ns`` is left for later."""
    began, ended = table.began(), table.ended()
    if not ended and len(began) == 1:  # as nearly always: of the one who is about to end it
        _begin(table, *began[0], now_ns)
        return
    if ended:  # Which are gone once the table is written.
        now_ns = max(now_ns, *(stamp_ns for stamp_ns, _ in ended))
    for stamp_ns, is_end, n in sorted(
        [(stamp_ns, False, n) for stamp_ns, n in began]
        + [(stamp_ns, True, n) for stamp_ns, n in ended]
    ):
        if not is_end:
            _begin(table, stamp_ns, n, now_ns)
            continue
        slot = table.slot(n)
        if slot.began_ns is not None and slot.posted_ns <= stamp_ns:
            table.load, slot = occupancy.abandon(table.load, slot, stamp_ns)
            table.put(n, slot)


def _begin(table: Table, stamp_ns: int, n: int, now_ns: int) -> None:
    if stamp_ns > now_ns:
        return
    slot = table.slot(n)
    if slot.began_ns is not None:  # Not even its end could be told.
        table.load, slot = occupancy.abandon(table.load, slot, stamp_ns)
    if slot.opened_ns is not None:
        table.load, slot = occupancy.begin(table.load, slot, stamp_ns)
    table.put(n, slot._replace(posted_ns=stamp_ns))


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
    table.put(n, occupancy.FREE._replace(posted_ns=slot.posted_ns))

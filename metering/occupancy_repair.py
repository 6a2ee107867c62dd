"""What whoever has a board's lock makes good for those who could not.

Pure but for the question who is alive; nothing is written here.
"""

from __future__ import annotations

from metering import occupancy
from metering.occupancy_file import BoardFile
from metering.occupancy_layout import Table


def settle(table: Table, now_ns: int) -> None:
    """End the batches whose own end found the lock taken, as of then or, if the others have moved
    on since, as of their last event."""
    for stamp_ns, n in table.ended():
        slot = table.slot(n)
        if slot.began_ns is not None and slot.began_ns <= stamp_ns:
            table.load, slot = occupancy.abandon(table.load, slot, min(stamp_ns, now_ns))
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
    table.put(n, occupancy.FREE)

"""The occupancy board: the instances on one accelerator agree, batch by batch, who had it when.

Every model instance is a process of its own. At a batch's begin it puts a stamp into its device's
file. At the end it takes the file's lock, moves the shared state of :mod:`metering.occupancy` on,
over all that was put there meanwhile, and writes it. Where it is the only instance on its device,
no lock is needed at the end either: it puts sums there, for whoever has the lock next. Metering
never holds up inference: a lock that is not to be had within ``PATIENCE_NS`` is left alone, and
that batch has no share.

Whoever has the lock next makes good what another could not: it ends a batch whose end found the
lock taken, and abandons the batch of a process that is gone. What such a batch had is lost to its
share, but not to the count: ``given_ns + lost_ns == busy_ns`` whenever nothing runs.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from pathlib import Path
from typing import NamedTuple, Self

from metering import occupancy
from metering.errors import MeteringError
from metering.occupancy import SLOTS, Slot
from metering.occupancy_file import BoardFile, board_path
from metering.occupancy_layout import Table, sealed
from metering.occupancy_reading import DeviceReading, InstanceReading, read_boards
from metering.occupancy_repair import bury, retire, settle

__all__ = ["Board", "DeviceReading", "Held", "InstanceReading", "read_boards"]

log = logging.getLogger(__name__)

PATIENCE_NS = 2_000_000
OPEN_PATIENCE_NS = 500_000_000
CLOSE_PATIENCE_NS = 50_000_000
LOOK_EVERY_NS = 100_000_000
"""How often, at most, an instance looks whether the others are alive and the file still there."""
LOOK_ALONE_EVERY_NS = 1_000_000_000
REOPEN_EVERY_NS = 1_000_000_000
MAX_NAME_BYTES = 256

_boards: weakref.WeakSet[Board] = weakref.WeakSet()


class Held(NamedTuple):
    """A batch from ``start_ns`` to ``end_ns`` (monotonic), as the device counts it; without a share
    where the lock was not to be had at its end, or nothing could be written at its begin.

    ``start_ns`` is that of ``begin``, or some microseconds later: the time before it had been
    divided when the stamp came into the file. So may ``end_ns`` be later than that of ``end``.
    """

    start_ns: int
    end_ns: int
    share_ns: int | None


class Board:
    """One model instance's place on the board of its device; one batch at a time.

    A child that is forked has no part in it: its copy is closed.
    """

    def __init__(self, path: Path, device: str, text: bytes) -> None:
        self._path = path
        self._device = device
        self._text = text
        self._file: BoardFile | None = None
        self._slot = -1
        self._closed = False
        self._began_ns = 0
        self._is_shared = False
        self._is_owed = False  # something beside the state that the next begin would overwrite
        self._alone_since: int | None = None  # the count of openings, where no other slot is open
        self._known_ns = (0, 0)  # the slot's sums of shares and of wall times, as they must be
        self._alone = (0, 0)  # batches that were alone, and their time, in sum
        self._unshared = 0
        self._unshared_ns = 0
        self._patience_ns = PATIENCE_NS
        self._looked_ns = 0
        self._tried_ns = 0
        self._is_told = False

    @classmethod
    def open(cls, log_dir: Path, device: str, accelerator: str, source: str, model: str) -> Self:
        """Take a slot on the device's board, which is made where there is none of this boot.

        Raises:
            OSError: the file can't be made or read, or others hold its lock.
            MeteringError: a name is empty or too long, or all slots are taken.
        """
        names = {"device": device, "accelerator": accelerator, "source": source, "model": model}
        for name, value in names.items():
            if not 0 < len(value.encode()) <= MAX_NAME_BYTES:
                raise MeteringError(f"{name}={value!r} has not 1 to {MAX_NAME_BYTES} bytes")
        board = cls(board_path(log_dir, device), device, sealed(source, model, accelerator))
        board._open(OPEN_PATIENCE_NS)
        _boards.add(board)
        return board

    def begin(self) -> int:
        """A batch begins now (monotonic)."""
        self._is_owed |= self._is_shared  # The one before has not ended.
        self._is_shared = False
        try:
            file = self._file or self._reopened()
            self._began_ns = time.monotonic_ns()
            if file is not None and self._is_settled(file):
                file.post_begin(self._slot, self._began_ns)
                self._is_shared = True
                return self._began_ns
        except (OSError, MeteringError) as exc:
            self._leave(exc)
        self._began_ns = time.monotonic_ns()
        return self._began_ns

    def end(self) -> Held:
        """The batch ends now."""
        now_ns = time.monotonic_ns()
        file = self._file
        if self._is_shared and file is not None:
            self._is_shared = False
            try:
                if self._alone_since is not None:
                    if self._end_alone(file, now_ns):
                        return Held(self._began_ns, now_ns, now_ns - self._began_ns)
                    self._is_owed = True
                    if not self._lock(file):  # Its time has been counted all the same.
                        return Held(self._began_ns, now_ns, None)
                    return self._end(file, now_ns)
                if self._lock(file):
                    return self._end(file, now_ns)
                if not self._is_owed:
                    file.post_end(self._slot, now_ns)
                    self._is_owed = True
            except (OSError, MeteringError) as exc:
                self._leave(exc)
        self._unshared += 1
        self._unshared_ns += now_ns - self._began_ns
        return Held(self._began_ns, now_ns, None)

    def close(self) -> None:
        """Give the slot back. Where the lock is not to be had, the next one does it."""
        self._closed = True
        file, self._file = self._file, None
        if file is None:
            return
        try:
            if file.lock(CLOSE_PATIENCE_NS):
                table = file.read()
                now_ns = time.monotonic_ns()
                settle(table, now_ns)
                self._count_unshared(table)
                retire(table, self._slot, now_ns)
                file.write(table)
        except (OSError, MeteringError) as exc:
            log.warning("%s: %s", self._path, exc)
        file.close()

    def _is_settled(self, file: BoardFile) -> bool:
        """Whether a begin may be put beside the state. Who is alone, and so never needs the lock,
        takes it now and then all the same, to see that the file is still there."""
        looked_ago_ns = self._began_ns - self._looked_ns
        if self._is_owed:
            settled = self._pay(file)
        elif self._alone_since is not None and looked_ago_ns >= LOOK_ALONE_EVERY_NS:
            self._pay(file)
            settled = True
        else:
            return True
        self._began_ns = time.monotonic_ns()  # That took its time.
        return settled

    def _pay(self, file: BoardFile) -> bool:
        """Have what is beside the state taken up; ``False``: the lock is not to be had."""
        if not self._lock(file):
            return False
        try:
            table = file.read()
            now_ns = max(time.monotonic_ns(), table.load.at_ns)
            settle(table, now_ns)
            if table.slot(self._slot).began_ns is not None:  # Nobody has told its end.
                slot = table.slot(self._slot)
                table.load, slot = occupancy.abandon(table.load, slot, now_ns)
                table.put(self._slot, slot)
            self._leave_it(file, table, now_ns)
        finally:
            file.unlock()
        return True

    def _end_alone(self, file: BoardFile, now_ns: int) -> bool:
        """Tell of the batch in sums; ``False``: another instance has come meanwhile.

        In that order: who comes after the sums are there finds the batch over, and whoever was
        there before is seen here.
        """
        wall_ns = now_ns - self._began_ns
        count, sum_ns = self._alone
        opened = file.post_alone(self._slot, count + 1, sum_ns + wall_ns, now_ns)
        if opened != self._alone_since:
            return False
        self._alone = count + 1, sum_ns + wall_ns
        busy_ns, batch_ns = self._known_ns
        self._known_ns = busy_ns + wall_ns, batch_ns + wall_ns
        return True

    def _end(self, file: BoardFile, now_ns: int) -> Held:
        """The share is what the slot's own sums have grown by: somebody else may have taken up the
        end already."""
        try:
            table = file.read()
            ended_ns = settle(table, now_ns).get(self._slot, now_ns)
            slot = table.slot(self._slot)
            if slot.opened_ns is None:
                raise MeteringError(f"slot {self._slot} was given to nobody")
            if slot.began_ns is not None:
                table.load, slot, _ = occupancy.end(table.load, slot, now_ns)
                table.put(self._slot, slot)
                ended_ns = table.load.at_ns
            known_busy_ns, known_batch_ns = self._known_ns
            share_ns, wall_ns = slot.busy_ns - known_busy_ns, slot.batch_ns - known_batch_ns
            end_ns = max(ended_ns, self._began_ns + wall_ns)
            self._leave_it(file, table, max(end_ns, table.load.at_ns))
        finally:
            file.unlock()
        return Held(end_ns - wall_ns, end_ns, share_ns)

    def _leave_it(self, file: BoardFile, table: Table, now_ns: int) -> None:
        """Write the state, and remember what it says of this instance."""
        if now_ns - self._looked_ns >= LOOK_EVERY_NS:
            self._look(file, table, now_ns)
        if self._unshared:
            self._count_unshared(table)
        file.write(table)
        self._is_owed = False
        slot = table.slot(self._slot)
        self._known_ns, self._alone = (slot.busy_ns, slot.batch_ns), (slot.alone, slot.alone_ns)
        self._alone_since = None if table.is_shared(self._slot) else table.opened()

    def _look(self, file: BoardFile, table: Table, now_ns: int) -> None:
        self._looked_ns = now_ns
        if file.is_unlinked():
            raise OSError(f"{self._path} was removed")
        bury(table, file, now_ns, self._slot)

    def _count_unshared(self, table: Table) -> None:
        slot = table.slot(self._slot)
        counts = self._unshared, self._unshared_ns
        table.load, slot = occupancy.unshared(table.load, slot, *counts)
        table.put(self._slot, slot)
        self._unshared = self._unshared_ns = 0

    def _lock(self, file: BoardFile) -> bool:
        """Who was refused once does not wait again before it has had the lock."""
        mine = file.lock(self._patience_ns)
        self._patience_ns = PATIENCE_NS if mine else 0
        return mine

    def _reopened(self) -> BoardFile | None:
        """A file that was lost is opened again, or made, now and then."""
        now_ns = time.monotonic_ns()
        if not self._closed and now_ns - self._tried_ns >= REOPEN_EVERY_NS:
            self._tried_ns = now_ns
            self._open(PATIENCE_NS)
        return self._file

    def _open(self, patience_ns: int) -> None:
        file = BoardFile.made(self._path, self._device, patience_ns)
        try:
            self._slot = self._take_slot(file, patience_ns)
            file.map()
        except BaseException:
            file.close()
            raise
        self._file, self._is_told = file, False
        self._is_owed, self._alone_since = True, None

    def _take_slot(self, file: BoardFile, patience_ns: int) -> int:
        if not file.lock(patience_ns):
            raise OSError(f"{self._path} is locked")
        try:
            table = file.read()
            now_ns = time.monotonic_ns()
            settle(table, now_ns)
            bury(table, file, now_ns)
            for n in range(SLOTS):
                if table.slot(n).opened_ns is None and file.hold_slot(n):
                    file.write_texts(n, self._text)
                    file.post_begin(n, 0)
                    file.count_opened(table.opened() + 1)
                    table.newest = n
                    kept = table.slot(n)  # The sums that lie there have been counted.
                    table.put(n, Slot(now_ns, alone=kept.alone, alone_ns=kept.alone_ns))
                    file.write(table)
                    return n
        finally:
            file.unlock()
        raise MeteringError(f"device={self._device!r} has {SLOTS} instances, and no slot for more")

    def _leave(self, exc: Exception) -> None:
        if not self._is_told:
            log.warning("%s: %s; batches have no share until it can be opened", self._path, exc)
        self._is_told = True
        file, self._file = self._file, None
        self._tried_ns = time.monotonic_ns()
        if file is not None:
            file.close()

    def _forget(self) -> None:
        """In a forked child: the descriptor is the parent's, and so are the locks on it."""
        file, self._file, self._closed = self._file, None, True
        if file is not None:
            file.close()


def _leave_to_the_parent() -> None:
    for board in list(_boards):
        board._forget()


os.register_at_fork(after_in_child=_leave_to_the_parent)

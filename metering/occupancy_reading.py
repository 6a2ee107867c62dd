"""What a board says to others: for a process beside the server, which asks now and then."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from metering import occupancy
from metering.errors import MeteringError
from metering.occupancy_file import FOLDER, SUFFIX, BoardFile, boot_id
from metering.occupancy_layout import DamagedBoard, Table
from metering.occupancy_repair import bury, settle

log = logging.getLogger(__name__)

PATIENCE_NS = 20_000_000
TRIES = 5


@dataclass(frozen=True, slots=True)
class InstanceReading:
    """An instance since its slot was opened. ``busy_ns`` sums its batches' shares, ``batch_ns``
    their wall times; ``unshared`` of its ``executions`` have no share."""

    source: str
    model: str
    wall_ns: int
    busy_ns: int
    batch_ns: int
    executions: int
    running_since_ns: int | None
    unshared: int = 0


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """A device since its board was made, at ``read_at_ns`` of the monotonic clock of ``boot``.

    ``accelerator`` is as the last instance that came has named it. ``busy_ns`` holds what runs
    now, too; ``given_ns`` and ``lost_ns`` are of batches that have ended. ``executions`` and
    ``batch_ns`` are of all instances that ever were there. ``board`` is the board's identity: no
    other board, of whatever device or log folder, has the same one.
    """

    device: str
    accelerator: str
    boot: str
    read_at_ns: int
    wall_ns: int
    busy_ns: int
    idle_ns: int
    given_ns: int
    lost_ns: int
    running: int
    instances: tuple[InstanceReading, ...]
    executions: int = 0
    batch_ns: int = 0
    board: str = ""


def read_boards(log_dir: Path) -> list[DeviceReading]:
    """Every device of this boot below ``log_dir``, by its file's name.

    Frees the slots of the dead on the way, where the lock is to be had. A file that can't be read
    is logged and left out; one of another boot is left out.
    """
    found = []
    for path in sorted((log_dir / FOLDER).glob(f"*{SUFFIX}")):
        try:
            file = BoardFile.open(path)
            try:
                boot, device = file.names()
                if boot == boot_id():
                    found.append(_reading(file, boot, device))
            finally:
                file.close()
        except (OSError, MeteringError) as exc:
            log.warning("%s is left out: %s", path, exc)
    return found


def _reading(file: BoardFile, boot: str, device: str) -> DeviceReading:
    if file.lock(PATIENCE_NS):
        try:
            return _of(*_repaired(file, is_mine=True), file, boot, device)
        finally:
            file.unlock()
    # Its holder is frozen, or very busy: what is repaired is in the reading alone.
    for _ in range(TRIES):
        try:
            return _of(*_repaired(file, is_mine=False), file, boot, device)
        except DamagedBoard:  # It was just being written, twice.
            time.sleep(0.001)
    return _of(*_repaired(file, is_mine=False), file, boot, device)


def _repaired(file: BoardFile, *, is_mine: bool) -> tuple[Table, int]:
    table = file.read()
    now_ns = max(time.monotonic_ns(), table.load.at_ns)
    changed = bool(table.began() or table.ended())
    settle(table, now_ns)
    changed |= bury(table, file, now_ns)
    if is_mine and changed:
        file.write(table)
    return table, now_ns


def _of(table: Table, now_ns: int, file: BoardFile, boot: str, device: str) -> DeviceReading:
    load = occupancy.advance(table.load, now_ns)
    wall_ns = now_ns - load.created_ns
    return DeviceReading(
        device=device,
        accelerator=file.texts(table.newest)[2] if table.newest >= 0 else "",
        boot=boot,
        read_at_ns=now_ns,
        wall_ns=wall_ns,
        busy_ns=load.busy_ns,
        idle_ns=wall_ns - load.busy_ns,
        given_ns=load.given_ns,
        lost_ns=load.lost_ns,
        running=load.running,
        instances=tuple(_instances(table, now_ns, file)),
        executions=load.executions,
        batch_ns=load.batch_ns,
        board=f"{load.created_ns:x}-{file.identity()}",
    )


def _instances(table: Table, now_ns: int, file: BoardFile) -> list[InstanceReading]:
    readings = []
    for n in range(table.used):
        slot = table.slot(n)
        if slot.opened_ns is not None:
            source, model, _ = file.texts(n)
            readings.append(
                InstanceReading(
                    source=source,
                    model=model,
                    wall_ns=now_ns - slot.opened_ns,
                    busy_ns=slot.busy_ns,
                    batch_ns=slot.batch_ns,
                    executions=slot.executions,
                    running_since_ns=slot.began_ns,
                    unshared=slot.unshared,
                )
            )
    return readings

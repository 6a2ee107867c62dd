"""The board's file: what is read and written when, and who may.

It is written in full when it is made, so it needs no space later, and comes to its name by a
rename. Of the two copies of the state the older one is overwritten; whoever dies at it leaves the
other one.

It is read and written by calls. What an instance puts there at every batch, without the lock, it
puts through a mapping (``metering.mapping``), where that is compiled: three calls of the kernel
take a batch some 0.1 ms. Readers see one as the other.

Locks, all released by a death: ``flock`` on the file, for the state; a lock of the open file
description (``fcntl(2)``) on one byte per slot, far behind the end, for as long as the slot is
somebody's; ``flock`` on the folder, while a board is made.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Self
from urllib.parse import quote

from metering.compiled_server import mapping
from metering.occupancy_layout import (
    ALONE,
    ALONE_AT,
    BEGAN_AT,
    COPY_BYTES,
    ENDED_AT,
    FILE_BYTES,
    HEADER_BYTES,
    MAGIC,
    OPENED_AT,
    PREFIX,
    STAMP,
    STATE_AT,
    TEXT_BYTES,
    TEXTS_AT,
    DamagedBoard,
    Table,
    is_newest,
    newest_sound,
    sealed,
    unsealed,
)

FOLDER = ".devices"
SUFFIX = ".board"
PAUSE_S = 20e-6
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SLOT_LOCKS_AT = 1 << 40
_FLOCK = struct.Struct("hhqqi4x")
_BEGAN, _OPENED, _ALONE = (at // STAMP.size for at in (BEGAN_AT, OPENED_AT, ALONE_AT))
_ALONE_EACH = ALONE.size // STAMP.size


def boot_id() -> str:
    """The monotonic clock begins anew with each."""
    return BOOT_ID.read_text().strip()


def board_path(log_dir: Path, device: str) -> Path:
    """Where a device's board lies; no source has a folder there."""
    name = quote(device, safe="")
    if len(name) > 200:
        name = f"{name[:100]}-{sha256(device.encode()).hexdigest()}"
    return log_dir / FOLDER / f"{name}{SUFFIX}"


class BoardFile:
    """An open board; every descriptor is a party of its own to the locks."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._buffer = bytearray(TEXTS_AT - ENDED_AT)
        self._written: Table | None = None
        self._mapping: mapping.Mapping | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises OSError: there is none, or it can't be read and written."""
        return cls(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))

    @classmethod
    def made(cls, path: Path, device: str, patience_ns: int) -> Self:
        """The board at ``path``; a new one where there is none, or none that can be used.

        Raises:
            OSError: the folder can't be written, the disk is full, or others hold the lock.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not _lock(folder, patience_ns):
                raise OSError(f"{path.parent} is locked by who makes a board")
            if (found := cls._usable(path, device, patience_ns)) is not None:
                return found
            new = path.with_suffix(".new")
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            file = cls(path, os.open(new, flags, 0o640))
            try:
                file._write_all(device)
                new.rename(path)
            except OSError:
                file.close()
                raise
            return file
        finally:
            os.close(folder)

    @classmethod
    def _usable(cls, path: Path, device: str, patience_ns: int) -> Self | None:
        try:
            file = cls.open(path)
        except FileNotFoundError:
            return None
        try:
            if file.names() == [boot_id(), device]:
                if not file.lock(patience_ns):
                    raise OSError(f"{path} is locked")
                file.read()
                file.unlock()
                return file
        except DamagedBoard:
            pass
        except OSError:
            file.close()
            raise
        file.close()
        return None

    def _write_all(self, device: str) -> None:
        now_ns = time.monotonic_ns()
        content = bytearray(FILE_BYTES)
        header = PREFIX.pack(*MAGIC) + sealed(boot_id(), device)
        content[: len(header)] = header
        table = Table.begun(now_ns)
        for table.sequence in (0, 1):
            state = table.encoded()
            at = STATE_AT + table.sequence * COPY_BYTES
            content[at : at + len(state)] = state
        written = os.pwrite(self._fd, content, 0)
        if written != len(content):
            raise OSError(f"{self.path}: {written} of {len(content)} bytes were written")

    def map(self) -> None:
        """For who puts something there at every batch. Where the file can't be mapped, or nothing
        is compiled, calls do it."""
        if mapping is not None and self._mapping is None and sys.byteorder == "little":
            with suppress(OSError):
                self._mapping = mapping.Mapping(self._fd, STATE_AT)

    def close(self) -> None:
        if self._mapping is not None:
            self._mapping.close()
        os.close(self._fd)

    def is_unlinked(self) -> bool:
        return os.fstat(self._fd).st_nlink == 0

    def identity(self) -> str:
        """Of the file, while it lasts; with when the board was begun, of the board for ever."""
        found = os.fstat(self._fd)
        return f"{found.st_dev:x}-{found.st_ino:x}"

    def names(self) -> list[str]:
        """(boot, device). Raises DamagedBoard: it is no board of this version."""
        raw = os.pread(self._fd, HEADER_BYTES, 0)
        if len(raw) < HEADER_BYTES or PREFIX.unpack_from(raw) != MAGIC:
            raise DamagedBoard(f"{self.path} begins with {raw[:12]!r}: no board of this version")
        return unsealed(raw[PREFIX.size :])

    def lock(self, patience_ns: int) -> bool:
        """Whether the state's lock was to be had in that time; its holder may be frozen."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _lock(self._fd, patience_ns)
        return True

    def unlock(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def read(self) -> Table:
        """The newer copy that is sound. Raises DamagedBoard."""
        mine, self._written = self._written, None
        if os.preadv(self._fd, [self._buffer], ENDED_AT) == len(self._buffer):
            if mine is not None and is_newest(self._buffer, mine):
                mine.stamps = self._buffer[: STATE_AT - ENDED_AT]
                return mine
            table = newest_sound(self._buffer)
            if table is not None:
                return table
        raise DamagedBoard(f"{self.path}: no copy of the state is sound")

    def write(self, table: Table) -> None:
        """Over the older copy; then the ends that have been settled are forgotten."""
        table.sequence += 1
        content = table.encoded()
        at = STATE_AT + table.sequence % 2 * COPY_BYTES
        if os.pwrite(self._fd, content, at) != len(content):
            raise OSError(f"{self.path}: {len(content)} bytes were not written whole")
        ended = table.ended()
        for _, n in ended:
            self.post_end(n, 0)
        self._written = None if ended else table

    def post_end(self, n: int, ended_ns: int) -> None:
        """Without the lock: whoever has it next ends the batch in slot ``n``. 0: nothing to."""
        os.pwrite(self._fd, STAMP.pack(ended_ns), ENDED_AT + STAMP.size * n)

    def post_begin(self, n: int, began_ns: int) -> None:
        """Without the lock: a batch runs in slot ``n`` from then on, for whoever has it next.

        Raises:
            OSError: the disk does not take it.
        """
        if self._mapping is not None:
            self._mapping.put(_BEGAN + n, began_ns)
            return
        if os.pwrite(self._fd, STAMP.pack(began_ns), BEGAN_AT + STAMP.size * n) != STAMP.size:
            raise OSError(f"{self.path}: the stamp was not written whole")

    def post_alone(self, n: int, count: int, sum_ns: int, over_ns: int) -> int:
        """Without the lock: so many batches of slot ``n`` were alone on the device so far. How
        often a slot had been opened after that was there.

        Raises:
            OSError: the disk does not take it.
        """
        if self._mapping is not None:
            self._mapping.put_between(_ALONE + _ALONE_EACH * n, count, sum_ns, over_ns)
            return self._mapping.get(_OPENED)
        content = ALONE.pack(count, sum_ns, over_ns, count)
        if os.pwrite(self._fd, content, ALONE_AT + ALONE.size * n) != ALONE.size:
            raise OSError(f"{self.path}: the sums were not written whole")
        raw = os.pread(self._fd, STAMP.size, OPENED_AT)
        if len(raw) != STAMP.size:
            raise DamagedBoard(f"{self.path} was cut short")
        return int(STAMP.unpack(raw)[0])

    def count_opened(self, count: int) -> None:
        os.pwrite(self._fd, STAMP.pack(count), OPENED_AT)

    def texts(self, n: int) -> list[str]:
        """(source, model, accelerator) of a slot. Raises DamagedBoard."""
        return unsealed(os.pread(self._fd, TEXT_BYTES, TEXTS_AT + n * TEXT_BYTES))

    def write_texts(self, n: int, text: bytes) -> None:
        os.pwrite(self._fd, text, TEXTS_AT + n * TEXT_BYTES)

    def hold_slot(self, n: int) -> bool:
        """Take the slot until the file is closed; ``False``: somebody has it."""
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _slot_lock(n))
        except BlockingIOError:
            return False
        return True

    def is_held(self, n: int) -> bool:
        """Whether somebody else, through another descriptor, has the slot."""
        answer = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, _slot_lock(n))
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _lock(fd: int, patience_ns: int) -> bool:
    until_ns: int | None = None
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            now_ns = time.monotonic_ns()
            if until_ns is None:
                until_ns = now_ns + patience_ns
            if now_ns >= until_ns:
                return False
            time.sleep(PAUSE_S)
        else:
            return True


def _slot_lock(n: int) -> bytes:
    return _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _SLOT_LOCKS_AT + n, 1, 0)

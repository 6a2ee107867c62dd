"""What the usage log has to do beside appending, in threads that start only when they are needed.

Neither is in the way of a batch: system calls release the interpreter, and nobody waits for them.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

from metering.wal_cap import enforce, is_tended

log = logging.getLogger(__name__)


class Syncer:
    """Syncs what was written, at most every ``interval_s``.

    In the emitter and not in the shipper: how much a loss of power may take is promised to
    whoever was answered, whether a shipper runs or not. Descriptors are closed here alone, so none
    is closed, and its number given to another file, while it is being synced.
    """

    def __init__(self, folder: Path, interval_s: float) -> None:
        self._folder = folder
        self._interval_s = interval_s
        self._named: int | None = None
        self._retired: deque[int] = deque()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.dirty: int | None = None
        """The descriptor that was written to; setting it is all that an append does."""

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="usage-log-sync", daemon=True)
            self._thread.start()

    def retire(self, fd: int) -> None:
        """Sync a segment that is full, then close it."""
        self._retired.append(fd)

    def stop(self) -> None:
        """All is synced and closed when this returns."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._sync()
        self._stop.clear()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._sync()

    def _sync(self) -> None:
        fd, self.dirty = self.dirty, None
        if fd is not None:
            sync(fd)
            if fd != self._named:  # The first time: its name has to last as well.
                sync_folder(self._folder)
                self._named = fd
        while self._retired:
            fd = self._retired.popleft()
            sync(fd)
            sync_folder(self._folder)
            os.close(fd)
            self._named = None


class CapKeeper:
    """Keeps the log at its cap where no shipper does: it is dead, frozen, or was never started."""

    def __init__(self, log_dir: Path, max_bytes: int) -> None:
        self._log_dir = log_dir
        self._max_bytes = max_bytes
        self._thread: threading.Thread | None = None
        self._turn = threading.Lock()
        self._wanted = False
        self._looks = 0

    def look(self, now_s: float) -> None:
        """One ``stat`` where a shipper is at work; else a thread counts and drops."""
        if is_tended(self._log_dir, now_s):
            return
        with self._turn:
            idle, self._wanted = not self._wanted, True
            self._looks += 1
        if idle:
            self.wait()  # It has done its work, and is only about to end.
            self._thread = threading.Thread(target=self._run, name="usage-log-cap", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        """Once more for all who have looked meanwhile."""
        while True:
            looked_at = self._looks
            self._enforce()
            with self._turn:
                if looked_at == self._looks:
                    self._wanted = False
                    return

    def _enforce(self) -> None:
        try:
            dropped = enforce(self._log_dir, self._max_bytes)
        except Exception:
            log.exception("%s can't be kept at its cap; tried again", self._log_dir)
        else:
            if dropped:
                log.error(
                    "%s is at its cap of %d bytes and no shipper is at work: "
                    "%d segments dropped, the oldest first; what they held is counted",
                    self._log_dir,
                    self._max_bytes,
                    dropped,
                )


def sync(fd: int) -> None:
    """A frame that could not be synced is in the log all the same, so this never raises."""
    try:
        os.fdatasync(fd)
    except OSError:
        log.exception("the usage log can't be synced: a loss of power may take what was logged")


def sync_folder(folder: Path) -> None:
    with suppress(OSError):  # The folder may have been removed meanwhile.
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

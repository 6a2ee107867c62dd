"""A folder in one stack's hands: its lock, and the sweeper that outlives the stack."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from metering.errors import StackError

_LOCK_WAIT_S = 15.0
_SWEEP_S = 20.0


class Custody:
    """Lock ``folder`` and start the sweeper; ``release`` lets the sweeper finish its work.

    The lock belongs to the sweeper too (it inherits the open file), so it is free only after the
    last process of the stack is gone, whatever killed the stack.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sweeper: subprocess.Popen[str] | None = None

    async def take(self) -> None:
        """Raises ``StackError`` if the folder can't be written to, or another stack has it for
        longer than some seconds."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StackError(
                f"can't write to the folder {self._folder}: {exc.strerror}: use another --dir"
            ) from exc
        try:
            await _lock(handle, self._folder)
            # -P: the working directory is not searched for modules.
            self._sweeper = subprocess.Popen(  # noqa: ASYNC220  returns at once
                [sys.executable, "-P", "-m", "streams.stack.sweeper"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(handle,),
                text=True,
            )
        finally:
            os.close(handle)

    def remember(self, **what: int | str) -> None:
        """``group=``, ``forget=``, ``shm=``, ``file=``, ``tree=``: see the sweeper."""
        if self._sweeper is None or self._sweeper.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):
            self._sweeper.stdin.write(json.dumps(what) + "\n")
            self._sweeper.stdin.flush()

    async def release(self) -> None:
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is None or sweeper.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):
            sweeper.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(sweeper.wait, _SWEEP_S)


def taken(folder: Path) -> StackError:
    return StackError(f"a stack is running in {folder.resolve()}: stop it or use another folder")


async def _lock(handle: int, folder: Path) -> None:
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise taken(folder) from None
            await asyncio.sleep(0.1)
        else:
            return

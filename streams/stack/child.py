"""One operating-system process: started on a leash, logged to a file, stopped as a whole."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from metering.errors import StackError
from streams.stack import leash
from streams.stack.custody import Custody
from streams.stack.groups import kill_group, members
from streams.stack.recipe import Progress, Recipe

TAIL_LINES = 15
_POLL_S = 0.05
SAY_EVERY_S = 5.0
_SHOWN = 160


class Child:
    """A started process and its group. ``ready_at`` is on the monotonic clock."""

    def __init__(self, recipe: Recipe, process: asyncio.subprocess.Process, log: Path) -> None:
        self.recipe = recipe
        self.log = log
        self.killed_on_purpose = False
        self.ready_at: float | None = None
        self._process = process

    @classmethod
    async def spawn(cls, recipe: Recipe, log: Path, custody: Custody) -> Child:
        process = await spawn_leashed(recipe.argv, recipe.env, recipe.cwd, log)
        custody.remember(group=process.pid)
        return cls(recipe, process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    def ready_s(self, now: float) -> float:
        return 0.0 if self.ready_at is None else now - self.ready_at

    async def become_ready(self, say: Progress = lambda _: None) -> None:
        """``say`` is told every five seconds that it still takes, and the log's last line.

        Raises:
            StackError: it exits first, which ends the wait at once, or is not ready in time.
        """
        begun = time.monotonic()
        next_line_s = SAY_EVERY_S
        exited = asyncio.ensure_future(self._process.wait())
        try:
            while not await _unless(exited, self.recipe.ready()):
                waited_s = time.monotonic() - begun
                if not self.alive:
                    raise self.error("exited while starting")
                if waited_s >= self.recipe.start_timeout_s:
                    raise self.error(f"is not ready after {self.recipe.start_timeout_s:.0f} s")
                if waited_s >= next_line_s:
                    next_line_s = waited_s + SAY_EVERY_S
                    say(f"{self.recipe.name}: not ready after {waited_s:.0f} s{self._last_line()}")
                await asyncio.wait({exited}, timeout=_POLL_S)
        finally:
            exited.cancel()
        if not self.alive:  # another process answers at its address
            raise self.error("exited while starting")
        self.ready_at = time.monotonic()

    async def wait(self) -> int:
        return await self._process.wait()

    def kill(self, sig: int) -> int:
        """Signal the whole group; its end is then no failure of the process."""
        self.killed_on_purpose = True
        kill_group(self.pid, sig)
        return self.pid

    def kill_unready(self) -> None:
        """End a process that did not become ready: that counts as a failure of its own."""
        kill_group(self.pid)

    async def stop(self, custody: Custody) -> None:
        """Ask the process, then make its group end; nothing of the group is left afterwards."""
        await self.end()
        await self.bury(custody)

    async def end(self) -> None:
        """Ask the process to end; kill its group if it does not in time."""
        if self.alive:
            self._process.send_signal(self.recipe.stop_signal)
            try:
                await asyncio.wait_for(self._process.wait(), self.recipe.stop_timeout_s)
            except TimeoutError:
                kill_group(self.pid)

    async def bury(self, custody: Custody) -> None:
        """Kill what is left of the group, wait until it is gone, and clean up after it."""
        kill_group(self.pid)
        await self._process.wait()
        while members(self.pid):
            kill_group(self.pid)
            await asyncio.sleep(0.02)
        if self.recipe.clean is not None:
            self.recipe.clean()
        custody.remember(forget=self.pid)

    def error(self, what: str) -> StackError:
        status = "" if self.alive else f" ({self.outcome})"
        lines = tail(self.log)
        shown = "".join(f"\n    {line}" for line in lines) or "\n    (empty)"
        return StackError(f"{self.recipe.name} {what}{status}; its log {self.log} ends:{shown}")

    def _last_line(self) -> str:
        line = "".join(tail(self.log, 1)).strip()
        return f"; its log ends: {line[:_SHOWN]}" if line else f"; its log {self.log} is empty"

    @property
    def waits(self) -> bool:
        """Whether it ended by itself because what it needs is away."""
        return self._process.returncode == os.EX_TEMPFAIL

    @property
    def outcome(self) -> str:
        code = self._process.returncode
        return "running" if code is None else describe_exit(code)


async def _unless(ended: asyncio.Future[int], asked: Coroutine[object, object, bool]) -> bool:
    """The answer; ``False`` as soon as ``ended`` is."""
    asking = asyncio.ensure_future(asked)
    try:
        both: set[asyncio.Future[Any]] = {asking, ended}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        return asking.result() if asking.done() else False
    finally:
        asking.cancel()


async def spawn_leashed(
    argv: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path
) -> asyncio.subprocess.Process:
    """In a group of its own; what it says is added to ``log``."""
    with log.open("ab") as out:
        return await asyncio.create_subprocess_exec(
            *leashed(argv),
            env=dict(env),
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )


def leashed(argv: Sequence[str]) -> list[str]:
    """The command that runs ``argv`` so that it dies with this process."""
    return [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *argv]


def describe_exit(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"signal {-returncode}, {signal.Signals(-returncode).name}"
    except ValueError:
        return f"signal {-returncode}"


def tail(log: Path, lines: int = TAIL_LINES) -> list[str]:
    """The last lines of a log file; none if there is no file."""
    try:
        with log.open("r", encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=lines)]
    except OSError:
        return []

"""Processes seen from outside, and the sender as one."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from pathlib import Path

from benchmarks.steady.sender import Load
from metering.errors import MeteringError
from streams.settings import Settings
from streams.stack.child import leashed, tail
from streams.stack.groups import kill_group
from streams.stack.places import REPO
from streams.stack.services import own_env

READY_S = 60.0
_MEMORY = re.compile(r"^(VmRSS|RssAnon):\s+(\d+) kB", re.MULTILINE)


def cpu_s(pid: int) -> float:
    """Of all its threads, to the nanosecond: clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)


def busy_s(stat: str) -> float:
    """Of all cores, since the machine's start: what ``/proc/stat`` says, without idle, waiting for
    disks, and what is counted in others already (guests)."""
    fields = [int(n) for n in stat.split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _waiting, *rest = fields
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def machine_busy_s() -> float:
    return busy_s(Path("/proc/stat").read_text())


def memory_of(pid: int) -> tuple[int, int]:
    """Resident bytes, and those of them that are anonymous: the others are pages of files, which
    the kernel takes back when it likes.

    Raises:
        MeteringError: the process is gone.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError as exc:
        raise MeteringError(f"process {pid} is gone") from exc
    found = dict(_MEMORY.findall(text))
    if len(found) < 2:
        raise MeteringError(f"process {pid} has ended")
    return int(found["VmRSS"]) * 1024, int(found["RssAnon"]) * 1024


class SenderProcess:
    """Started, it is ready to send and begins at once."""

    def __init__(self, load: Load, settings: Settings, folder: Path) -> None:
        self._load = load
        self._settings = settings
        self._log = folder / f"sender-{load.first_sequence}.log"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self._running.pid

    async def start(self) -> None:
        """Raises MeteringError: it does not begin."""
        path = os.pathsep.join(filter(None, (str(REPO), os.environ.get("PYTHONPATH"))))
        argv = (sys.executable, "-P", "-m", "benchmarks.steady.sender", self._load.to_json())
        with self._log.open("wb") as out:
            self._process = await asyncio.create_subprocess_exec(
                *leashed(argv),
                env={**own_env(os.environ), "PYTHONPATH": path, **self._settings.to_env()},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_S
        while b"sending" not in self._log.read_bytes():
            self.check()
            if time.monotonic() > deadline:
                raise self._error("does not begin")
            await asyncio.sleep(0.05)

    def check(self) -> None:
        """Raises MeteringError: it has failed."""
        if self._running.returncode:
            raise self._error(f"ended with exit code {self._running.returncode}")

    async def finished(self) -> int:
        """How many messages it has sent; by then all are acknowledged.

        Raises:
            MeteringError: it has failed.
        """
        await self._running.wait()
        self.check()
        return int(tail(self._log)[-1].split()[-1])

    async def kill(self) -> None:
        if self._process is not None:
            kill_group(self._process.pid)
            await self._process.wait()

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise MeteringError("the sender was not started")
        return self._process

    def _error(self, what: str) -> MeteringError:
        shown = "".join(f"\n    {line}" for line in tail(self._log))
        return MeteringError(f"the sender {what}; its log ends:{shown}")

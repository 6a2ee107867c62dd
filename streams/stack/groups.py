"""Process groups, as ``/proc`` shows them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple


class ProcessLine(NamedTuple):
    """What the stack reads of ``/proc/PID/stat``; ``started_ticks`` tells a reused pid apart."""

    pid: int
    command: str
    state: str
    group: int
    started_ticks: int


def read_process(pid: int) -> ProcessLine | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command is in brackets and may hold any character, so count from the last bracket.
    opened, closed = text.index("("), text.rindex(")")
    rest = text[closed + 2 :].split()
    return ProcessLine(pid, text[opened + 1 : closed], rest[0], int(rest[2]), int(rest[19]))


def members(group: int) -> list[ProcessLine]:
    """The living (not zombie) processes of a group."""
    lines = (read_process(int(entry.name)) for entry in Path("/proc").iterdir() if _is_pid(entry))
    return [line for line in lines if line and line.group == group and line.state not in "ZX"]


def kill_group(group: int, sig: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, sig)


def wait_until_gone(groups: set[int], timeout_s: float) -> set[int]:
    """Poll until the groups are empty; what is still there after ``timeout_s`` is returned."""
    deadline = time.monotonic() + timeout_s
    left = set(groups)
    while left and time.monotonic() < deadline:
        left = {group for group in left if members(group)}
        if left:
            time.sleep(0.02)
    return left


def _is_pid(entry: Path) -> bool:
    return entry.name.isdigit()

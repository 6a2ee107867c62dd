"""The process that tidies up after the stack, even when the stack was killed with SIGKILL.

It reads one JSON object a line from its standard input: ``{"group": PGID}`` to remember a process
group, ``{"forget": PGID}``, ``{"shm": PREFIX}``, ``{"file": PATH}``, ``{"tree": PATH}``. The end
of the input means that the stack is gone: it kills every remembered group, waits until the groups
are empty and removes the shared-memory files, the files and the trees (folders of links). It
holds the folder's lock meanwhile, so that the next stack in the folder begins only when nothing
of the last one is left.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from streams.stack.groups import kill_group, wait_until_gone

_WAIT_S = 10.0
SHM = Path("/dev/shm")  # noqa: S108  that is where shared memory is


def sweep(lines: Iterable[str]) -> None:
    groups: set[int] = set()
    prefixes: set[str] = set()
    files: set[Path] = set()
    trees: set[Path] = set()
    for line in lines:
        match json.loads(line):
            case {"group": int(group)}:
                groups.add(group)
            case {"forget": int(group)}:
                groups.discard(group)
            case {"shm": str(prefix)}:
                prefixes.add(prefix)
            case {"file": str(path)}:
                files.add(Path(path))
            case {"tree": str(path)}:
                trees.add(Path(path))
    for group in groups:
        kill_group(group)
    wait_until_gone(groups, _WAIT_S)
    for prefix in prefixes:
        remove_shm(prefix)
    for file in files:
        file.unlink(missing_ok=True)
    for tree in trees:
        shutil.rmtree(tree, ignore_errors=True)  # removes links, never what they lead to


def remove_shm(prefix: str) -> None:
    if prefix:
        for leftover in SHM.glob(f"{prefix}*"):
            leftover.unlink(missing_ok=True)


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sweep(sys.stdin)

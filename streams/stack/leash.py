"""Run a command that the kernel kills when its parent dies: ``leash.py PARENT_PID COMMAND…``.

Started by path, with ``-I -S``, so that it costs some milliseconds and imports nothing of the
project. It replaces itself by the command; ``PR_SET_PDEATHSIG`` outlives that.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    parent, command = int(argv[1]), argv[2:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        sys.exit("the parent is gone")
    try:
        os.execvp(command[0], command)  # noqa: S606  no shell is wanted
    except OSError as exc:
        print(f"can't run {command[0]}: {exc}", file=sys.stderr, flush=True)
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv)

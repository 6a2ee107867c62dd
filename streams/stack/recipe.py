"""What the supervisor is given: processes and steps, as data."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path

Probe = Callable[[], Coroutine[object, object, bool]]
# Asked now and then with the process group: why it must be restarted though it lives, if it must.
Watch = Callable[[int], Awaitable[str | None]]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """One process. ``env`` is its whole environment. ``ready`` is asked until it says yes.

    ``watch`` makes a new watch for each start, for what can be broken and alive.
    ``prepare`` runs once, before the first start; ``clean`` after each end, when nothing of the
    process is left. ``depends`` names what must be ready first. The process leads a group of its
    own, so that whatever it starts can be killed with it. ``stops_after`` names what must have
    stopped before it is asked to, beside what depends on it.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    ready: Probe
    cwd: Path
    depends: tuple[str, ...] = ()
    prepare: Callable[[], Awaitable[None]] | None = None
    clean: Callable[[], None] | None = None
    watch: Callable[[], Watch] | None = None
    start_timeout_s: float = 60.0
    stop_timeout_s: float = 15.0
    stop_signal: int = signal.SIGTERM
    stops_after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """Something to be done once between processes, such as creating the topics."""

    name: str
    action: Callable[[], Awaitable[None]]
    depends: tuple[str, ...] = ()


Unit = Recipe | Step

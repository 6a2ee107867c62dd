"""Looks whether a front's clients still wait, and shows the model behind it who doesn't."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from triton_models.emitter.flags import Flags

LOOK_EVERY_S = 0.05
SPARED = 10
"""A look asks the server about each request, some 0.1 ms; it takes at most 1/10 of the time."""


class Cancellable(Protocol):
    def is_cancelled(self) -> bool: ...


@dataclass(slots=True)
class _Watched:
    """``turn`` keeps a look from asking about a request that is being answered: Triton's
    side of it goes with the answer."""

    request: Cancellable
    slot: int
    turn: threading.Lock = field(default_factory=threading.Lock)
    over: bool = False


class Watch:
    """The requests of one front that are on their way; its thread starts with the first one."""

    def __init__(self, log: Callable[[str], None], every_s: float = LOOK_EVERY_S) -> None:
        self._log = log
        self._every_s = every_s
        self._flags = Flags()
        self._watched: dict[int, _Watched] = {}
        self._some = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="front-watch", daemon=True)
        self._started = threading.Lock()
        self._complained = False

    @contextmanager
    def over(self, request: Cancellable) -> Iterator[str]:
        """Watched until the end of the block; yields where its flag is, "" where there is none."""
        slot = self._flags.take()
        if slot is None:
            yield ""
            return
        watched = _Watched(request, slot)
        self._watched[slot] = watched
        self._some.set()
        self._start()
        try:
            yield self._flags.reference(slot)
        finally:
            with watched.turn:
                watched.over = True
            del self._watched[slot]
            self._flags.give_back(slot)

    def close(self) -> None:
        self._closed.set()
        self._some.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._flags.close()

    def _start(self) -> None:
        with self._started:
            if self._thread.ident is None:
                self._thread.start()

    def _run(self) -> None:
        pause_s = self._every_s
        while not self._closed.wait(pause_s):
            if not self._watched:
                self._some.clear()
                # Either may have come between the last look and the clearing.
                if not (self._watched or self._closed.is_set()):
                    self._some.wait()
            began_s = time.monotonic()
            try:
                for watched in list(self._watched.values()):
                    self._look(watched)
            except Exception as exc:  # noqa: BLE001  # a front goes on without it
                if not self._complained:
                    self._log(f"cancellations can't be seen: {exc!r}")
                self._complained = True
            pause_s = max(self._every_s, SPARED * (time.monotonic() - began_s))

    def _look(self, watched: _Watched) -> None:
        with watched.turn:
            if not watched.over and watched.request.is_cancelled():
                self._flags.show(watched.slot)

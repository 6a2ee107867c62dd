"""One log line when something stops answering, and one when it answers again.

Many wait for the same Kafka or ClickHouse, and each of them retries. They say here who of them has
failed and who has succeeded: the first failure of all is logged, and the end once nobody is left
who has failed. What a library says of its own connection counts too (``COMPLAINT``).
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from metering.errors import SinkUnavailable

log = logging.getLogger(__name__)

REMIND_EVERY_S = 600.0
CALM_S = 2.0
"""A client complains several times a second while it has no connection. When it has been calm for
so long, anybody's success ends the outage."""
QUIET_S = 60.0
"""After so long without a complaint it is over where nobody has had anything to send. Longer than a
client waits for an answer."""
BLIP_S = 1.0
"""Complaints that end within that are no outage: a broker that takes over another's partitions."""
COMPLAINT = "its client"
_INTERNALS = re.compile(r", <AddressFamily\.\w+: \d+>|<class '(?:\w+\.)*(\w+)'>| object at 0x\w+")
Clock = Callable[[], float]


@dataclass(slots=True)
class _Outage:
    since_s: float
    logged_s: float | None = None
    failing: set[Hashable] = field(default_factory=set)
    failures: int = 0
    complained_s: float = 0.0


class Outages:
    """Of one process. ``clock`` is monotonic, in seconds. May be used from several threads."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[str, _Outage] = {}
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None

    def failed(self, who: Hashable, problem: SinkUnavailable) -> None:
        """``who`` will retry, and is the same at each attempt. What is away is the first word of
        the problem's target."""
        self.away(problem.target.partition(" ")[0], who, str(problem))

    def away(self, what: str, who: Hashable, problem: str) -> None:
        problem = plain(problem)
        with self._lock:
            now_s = self._clock()
            outage = self._open.setdefault(what, _Outage(now_s))
            if outage.logged_s is None and (who != COMPLAINT or now_s - outage.since_s >= BLIP_S):
                outage.logged_s = now_s
                log.warning("%s; retrying until it succeeds", problem)
            elif outage.logged_s is not None and now_s - outage.logged_s >= REMIND_EVERY_S:
                outage.logged_s = now_s
                log.warning("%s: no success for %.0f s: %s", what, now_s - outage.since_s, problem)
            outage.failing.add(who)
            outage.failures += 1
            if who == COMPLAINT:
                outage.complained_s = now_s
                self._look_later()

    def recovered(self, who: Hashable, what: str | None = None) -> None:
        """``who`` has succeeded, with ``what`` or, where that is not known, with all it needs."""
        if not self._open:  # nearly always
            return
        with self._lock:
            for name, outage in list(self._open.items()):
                if who in outage.failing or name == what:
                    outage.failing.discard(who)
                    if self._clock() - outage.complained_s >= CALM_S:
                        outage.failing.discard(COMPLAINT)
                    self._end(name, outage, self._clock())

    def gave_up(self, who: Hashable) -> None:
        """``who`` will not retry any more; whether what failed is back is not known."""
        with self._lock:
            for name, outage in list(self._open.items()):
                if who in outage.failing:
                    outage.failing.discard(who)
                    if not outage.failing:
                        del self._open[name]

    def _end(self, what: str, outage: _Outage, at_s: float) -> None:
        if outage.failing:
            return
        del self._open[what]
        if outage.logged_s is not None:
            log.info(
                "%s answers again after %.1f s; %d failures in all",
                what, at_s - outage.since_s, outage.failures,
            )  # fmt: skip

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(QUIET_S, self._look)
            self._timer.daemon = True
            self._timer.start()

    def _look(self) -> None:
        with self._lock:
            self._timer = None
            for name, outage in list(self._open.items()):
                if COMPLAINT not in outage.failing:
                    continue
                if self._clock() - outage.complained_s < QUIET_S / 2:
                    self._look_later()
                else:
                    outage.failing.discard(COMPLAINT)
                    self._end(name, outage, outage.complained_s)


def plain(text: str) -> str:
    """Without the insides of Python objects, which libraries write into their errors."""
    return _INTERNALS.sub(lambda match: match[1] or "", text)


OUTAGES = Outages()
"""Those of this process, as its loggers are."""

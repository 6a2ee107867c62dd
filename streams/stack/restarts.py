"""When a dead process is started again, and when that has no sense any more. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 5.0
SHORT_LIFE_S = 5.0
MOST_SHORT_LIVES = 5
WAITING_DELAY_S = 1.0


@dataclass(frozen=True, slots=True)
class Restart:
    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    short_lives: int


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Counts short lives in a row: a process that was ready for long, or was killed on purpose,
    begins anew; the delay doubles with each short life, and after too many there is no restart.
    A process that ended because what it needs is away is tried again, however often that happens.
    """

    short_lives: int = 0

    def after_exit(
        self, ready_s: float, wanted: bool, waits: bool = False
    ) -> tuple[RestartPolicy, Restart | GiveUp]:
        """``ready_s``: how long it had been ready (0 if never); ``wanted``: killed on purpose;
        ``waits``: it said itself that it can't go on just now (exit code ``EX_TEMPFAIL``)."""
        if wanted or ready_s >= SHORT_LIFE_S:
            return RestartPolicy(), Restart(FIRST_DELAY_S)
        if waits:
            return self, Restart(WAITING_DELAY_S)
        lives = self.short_lives + 1
        if lives >= MOST_SHORT_LIVES:
            return RestartPolicy(lives), GiveUp(lives)
        return RestartPolicy(lives), Restart(min(FIRST_DELAY_S * 2 ** (lives - 1), LONGEST_DELAY_S))

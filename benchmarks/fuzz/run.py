"""One run: send all, wait until the worker has counted to the end, and compare."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.fuzz.generator import messages
from benchmarks.fuzz.journal import Journal
from benchmarks.fuzz.letters import Letters, read_letters
from benchmarks.fuzz.send import send
from benchmarks.fuzz.stored import Stored, read_stored
from benchmarks.fuzz.worker import Seen, look
from benchmarks.report import Say
from metering.errors import MeteringError
from streams.stack.stack import Stack

_POLL_S = 0.5
_TELL_EVERY_S = 5.0
STUCK_AFTER_S = 120.0
SETTLE_S = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """``at_rest`` is the worker before anything was sent, ``seen`` in the end. ``counted``: it has
    come to the end of the topic."""

    journal: Journal
    letters: Letters
    stored: Stored
    at_rest: Seen
    seen: Seen
    sent_s: float
    handled_s: float
    counted: bool
    restarts: int


async def fuzz(stack: Stack, count: int, seed: int, say: Say) -> Outcome:
    """The stack is without anything on its topics.

    Raises:
        MeteringError: the worker does not answer at the beginning or in the end.
    """
    journal = Journal()
    at_rest = await look(stack)
    if at_rest is None:
        raise MeteringError("the worker does not answer")
    begun = time.monotonic()
    sending = asyncio.create_task(
        send(stack.settings, messages(count, seed, time.time_ns), journal)
    )
    sending.add_done_callback(lambda _: say(f"{len(journal):,} sent"))
    try:
        sent_s, seen, counted = await _follow(stack, journal, sending, count, say)
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
    handled_s = time.monotonic() - begun
    say("reading the dead letters")
    letters = await read_letters(stack.settings, journal)
    say("reading lines and windows")
    stored = await _settled(stack, journal)
    return Outcome(
        journal=journal,
        letters=letters,
        stored=stored,
        at_rest=at_rest,
        seen=await look(stack) or seen,
        sent_s=sent_s,
        handled_s=handled_s,
        counted=counted,
        restarts=stack.restarts["worker"],
    )


async def _follow(
    stack: Stack, journal: Journal, sending: asyncio.Task[None], count: int, say: Say
) -> tuple[float, Seen, bool]:
    """How long sending took, the worker in the end, and whether it has counted everything. A
    worker that does not come any further for ``STUCK_AFTER_S`` is given up."""
    begun = moved_at = told_at = time.monotonic()
    sent_s = 0.0
    last = Seen(-1, 0, 0, 0, 0.0, 0.0)
    while True:
        await asyncio.sleep(_POLL_S)
        now = time.monotonic()
        if sending.done():
            sending.result()
            sent_s = sent_s or now - begun
        seen = await look(stack)
        if seen is not None and seen.counted_to != last.counted_to:
            last, moved_at = seen, now
        if now - told_at > _TELL_EVERY_S:
            told_at = now
            say(
                f"{len(journal):,} of {count:,} sent, {last.counted_to + 1:,} handled, "
                f"{(last.counted_to + 1) / (now - begun):,.0f}/s; worker {last.rss_mib:,.0f} MiB"
            )
        if sending.done() and last.counted_to >= len(journal) - 1:
            return sent_s, last, True
        if now - moved_at > STUCK_AFTER_S:
            say(f"the worker is stuck behind offset {last.counted_to}")
            return sent_s, last, False


async def _settled(stack: Stack, journal: Journal) -> Stored:
    """As it is once it is right, or when time is up: open windows are told of once a second."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        stored = await asyncio.to_thread(read_stored, stack.settings, journal)
        if stored.is_right or time.monotonic() > deadline:
            return stored
        await asyncio.sleep(1.0)

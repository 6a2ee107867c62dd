"""What is left after the faults, against what the clients, the topics and sums say.

Nothing here is counted by the code that is tested, save the losses that it owns up to, which are
what is put to the test: requests come from the clients, a batch's time from its message in the
topic, windows are summed anew from the lines.

The log is asked first, then ClickHouse, then Kafka. So where nothing waits in the log, and
ClickHouse has what the topic has, nothing is under way that could still arrive, once or twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sized
from dataclasses import dataclass, replace

from aiokafka.errors import KafkaError

from benchmarks.faults.load import Answers
from benchmarks.faults.losses import Losses, read_losses
from benchmarks.faults.published import Published, read_published
from benchmarks.faults.stored import Stored, read_stored
from metering.errors import MeteringError
from streams.stack.stack import Stack

_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Findings:
    """Empty and 0 wherever all is well, but for ``stored``, ``lost``, and ``extra``: what is
    stored though its client got no answer, which is allowed."""

    stored: int
    missing: list[str]
    """Answered, and not stored: as many as ``lost`` has, where all is well."""
    lost: Losses
    """What the log has owned up to, of this part."""
    waiting_bytes: int = 0
    extra: int = 0
    twice: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    """Stored, and never sent."""
    wrong: tuple[str, ...] = ()
    """Stored for another tenant or model, or with other tokens, than the client was told."""
    unconserved: tuple[tuple[str, int], ...] = ()
    """Batches whose lines differ from their message in ids, tenants or time."""
    unpublished: int = 0
    """Lines that are on their topic and should not, or the other way round."""
    gaps: int = 0
    """Batches that are missing in the sequences, less those that the log has owned up to."""
    windows: tuple[str, ...] = ()
    """Windows that differ from the sum of their lines, or should long be final."""
    unpriced: int = 0
    refused: int = 0

    @property
    def unaccounted(self) -> int:
        """Below 0: counted as lost, and stored all the same."""
        return len(self.missing) - self.lost.requests

    @property
    def problems(self) -> list[str]:
        what: dict[str, int | Sized] = {
            "bytes wait in the log": self.waiting_bytes,
            "answered requests are neither stored nor counted as lost": self.unaccounted,
            "requests are stored twice": self.twice,
            "requests are stored that nobody sent": self.unknown,
            "requests are stored otherwise than they were answered": self.wrong,
            "batches are not conserved": self.unconserved,
            "lines are not on their topic, or there alone": self.unpublished,
            "batches are missing in their sequence, and not counted as lost": self.gaps,
            "windows differ from the sum of their lines, or stay open": self.windows,
            "lines are unpriced": self.unpriced,
            "messages were refused": self.refused,
        }
        return [_told(found, text) for text, found in what.items() if found]


def _told(found: int | Sized, text: str) -> str:
    if isinstance(found, tuple):
        return f"{len(found)} {text}: {found[:3]}"
    return f"{found} {text}"


async def settled(
    stack: Stack, answers: Answers, prefix: str, timeout_s: float, before: Losses | None = None
) -> tuple[Findings, float]:
    """The findings once there is nothing to complain of, or as they are when time is up; and how
    long that took. ClickHouse, Kafka and the shipper may be away meanwhile.

    ``before`` is what the log had lost before the part; by default nothing.
    """
    begun = time.monotonic()
    while True:
        waited_s = time.monotonic() - begun
        try:
            findings = await look(stack, answers, prefix, before)
        except (MeteringError, KafkaError):
            if waited_s > 2 * timeout_s:
                raise
        else:
            if not findings.problems or waited_s > timeout_s:
                return findings, waited_s
        await asyncio.sleep(_POLL_S)


async def look(
    stack: Stack, answers: Answers, prefix: str, before: Losses | None = None
) -> Findings:
    """Requests are those whose id begins with ``prefix``; batches, lines and windows are all.

    Raises:
        MeteringError, KafkaError: the shipper, ClickHouse or Kafka does not answer.
    """
    ever = await read_losses(stack)
    if ever is None:
        raise MeteringError("the shipper does not answer")
    stored = await asyncio.to_thread(read_stored, stack.settings, prefix)
    early = judge(answers, ever, before or Losses(), stored, None)
    if early.problems:  # The rest has no sense yet.
        return early
    published = await read_published(stack.settings)
    return judge(answers, ever, before or Losses(), stored, published)


def judge(
    answers: Answers, ever: Losses, before: Losses, stored: Stored, published: Published | None
) -> Findings:
    """Without ``published``: only what the clients and the log say of what is stored."""
    findings = Findings(
        stored=len(stored.requests),
        missing=sorted(answers.told.keys() - stored.requests.keys()),
        lost=ever - before,
        waiting_bytes=ever.lag_bytes,
        extra=len(stored.requests.keys() & answers.failed),
    )
    if published is None:
        return findings
    known = answers.told.keys() | answers.failed
    lines = {
        (source, f"{sequence}/{position}")
        for (source, sequence), parts in published.batches.items()
        for position in range(len(parts))
    }
    return replace(
        findings,
        twice=_sorted(name for name, count in stored.requests.items() if count > 1),
        unknown=_sorted(stored.requests.keys() - known),
        wrong=_sorted(
            name for name, told in answers.told.items() if stored.said.get(name, told) != told
        ),
        unconserved=tuple(
            sorted(
                identity
                for identity in published.batches.keys() | stored.batches.keys()
                if published.batches.get(identity) != stored.batches.get(identity)
                or identity in published.unequal
            )
        ),
        unpublished=len(lines ^ published.lines),
        gaps=published.gaps - ever.batches,
        windows=tuple(stored.windows),
        unpriced=stored.unpriced,
        refused=published.refused,
    )


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))

"""What the stream decides about usage messages: refuse, drop, price, count. No I/O.

One ledger belongs to one partition of the usage topic. It is saved whole, in one record, after
everything that it decided has been written; so it never speaks of what was not, and what it
decided after the last save is decided again in the same way.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter

import numpy as np

from metering.costs import WindowRow
from metering.counting import count_lines
from metering.errors import MeteringError, UnreadableUsage
from metering.frame import Document, Frame, frame_of
from metering.lines import NO_LINES, CostLines
from metering.messages import Message, read
from metering.prices import PriceBook
from metering.pricing_columns import price
from metering.sequences import SequenceSet
from metering.windows import Tally, Window, WindowKey, WindowState, close, forget

NS_PER_SECOND = 10**9
_FORMAT = 1
_counts = attrgetter(*(f.name for f in fields(Tally)))


@dataclass(frozen=True, slots=True)
class Policy:
    """How much disorder is waited for, and for how long a window may still be corrected."""

    disorder_ns: int = 2 * NS_PER_SECOND
    retention_ns: int = 120 * NS_PER_SECOND
    quiet_ns: int = 3 * NS_PER_SECOND
    future_ns: int = 60 * NS_PER_SECOND
    source_retention_ns: int = 7 * 86_400 * NS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message for the dead-letter topic. ``late`` ones were priced and stored all the same."""

    message: Message
    reason: str
    detail: str


@dataclass(slots=True)
class Decision:
    """What is to be written."""

    lines: CostLines = NO_LINES
    refusals: list[Refusal] = field(default_factory=list)
    rows: list[WindowRow] = field(default_factory=list)
    offsets: tuple[int, int] = (0, -1)  # the first and the last that were decided about
    batches: int = 0
    duplicates: int = 0
    replayed: int = 0


@dataclass(slots=True)
class Source:
    """One emitting process: which of its batches were seen, and when it last spoke."""

    seen: SequenceSet = field(default_factory=SequenceSet)
    last_ns: int = 0


@dataclass(slots=True)
class Ledger:
    windows: WindowState = field(default_factory=WindowState)
    sources: dict[str, Source] = field(default_factory=dict)
    last_arrival_ns: int = 0


def take(
    ledger: Ledger, messages: Sequence[Message], book: PriceBook, policy: Policy, now_ns: int
) -> Decision:
    """Decide about messages in the order of their offsets. What is decided about a message
    depends on the messages before it and the price book alone, not on ``now_ns`` (epoch), from
    which it is only reckoned how long the topic has been quiet."""
    decision = Decision()
    new = [m for m in messages if m.offset > ledger.windows.counted_to]
    decision.replayed = len(messages) - len(new)
    if not new:
        return decision
    decision.offsets = new[0].offset, new[-1].offset
    accepted: list[tuple[Message, Document]] = []
    came = read(new)
    for message, found in zip(new, came.events, strict=True):
        try:
            if isinstance(found, UnreadableUsage):
                raise found
            _hold_back_the_future(found["end_epoch_ns"], message, policy)
        except UnreadableUsage as exc:
            decision.refusals.append(Refusal(message, exc.reason, exc.detail))
            continue
        source = ledger.sources.setdefault(found["source"], Source())
        if source.seen.add(found["sequence"]):
            source.last_ns = max(source.last_ns, found["end_epoch_ns"])
            accepted.append((message, found))
        else:
            decision.duplicates += 1
    if accepted:
        frame = came.frame
        if frame is None or len(accepted) < len(new):
            frame = frame_of([document for _, document in accepted])
        decision.lines, late = _count(ledger, frame, [m for m, _ in accepted], book, policy)
        decision.refusals = sorted(decision.refusals + late, key=lambda r: r.message.offset)
        decision.batches = len(accepted)
    ledger.windows.counted_to = max(m.offset for m in new)
    ledger.last_arrival_ns = now_ns
    return decision


def _hold_back_the_future(end_epoch_ns: int, message: Message, policy: Policy) -> None:
    if end_epoch_ns > message.appended_ns + policy.future_ns:
        raise UnreadableUsage(
            "from-the-future",
            f"end_epoch_ns={end_epoch_ns} is more than "
            f"{policy.future_ns / NS_PER_SECOND:g} s after the broker's "
            f"{message.appended_ns}: check the server's clock",
        )


def _count(
    ledger: Ledger,
    frame: Frame,
    accepted: Sequence[Message],
    book: PriceBook,
    policy: Policy,
) -> tuple[CostLines, list[Refusal]]:
    """Price and count; the refusals are of events that came too late for a window."""
    lines = price(frame, book)
    ends_ns = frame.of_batch("end_epoch_ns")
    reached_ns = np.maximum.accumulate(
        np.r_[ledger.windows.watermark_ns, ends_ns - policy.disorder_ns]
    )
    late = count_lines(
        ledger.windows,
        lines,
        frame.batch,
        ends_ns,
        reached_ns[:-1],
        retention_ns=policy.retention_ns,
    )
    ledger.windows.watermark_ns = int(reached_ns[-1])
    return lines, [
        Refusal(
            accepted[n],
            "late",
            f"{frame.counts[n]} requests ended at {ends_ns[n]}, more than "
            f"{policy.retention_ns / NS_PER_SECOND:g} s behind the watermark "
            f"{reached_ns[n]}: stored, but their windows are not corrected",
        )
        for n in np.flatnonzero(late).tolist()
    ]


def is_quiet(ledger: Ledger, policy: Policy, now_ns: int) -> bool:
    """Whether nothing has come for ``quiet_ns``."""
    return now_ns - ledger.last_arrival_ns > policy.quiet_ns


def tell(
    ledger: Ledger, policy: Policy, now_ns: int, *, provisional: bool, caught_up: bool = False
) -> list[WindowRow]:
    """Window rows that are due. A topic that is quiet and has been read to its end (``caught_up``)
    does not hold its windows open: they close by the clock; if more comes all the same, they are
    corrected."""
    closing_ns = ledger.windows.watermark_ns
    if caught_up and is_quiet(ledger, policy, now_ns):
        closing_ns = max(closing_ns, now_ns - policy.disorder_ns - policy.quiet_ns)
    rows = close(ledger.windows, closing_ns, provisional=provisional)
    forget(ledger.windows, retention_ns=policy.retention_ns)
    horizon = ledger.windows.watermark_ns - policy.source_retention_ns
    for name in [n for n, s in ledger.sources.items() if s.last_ns < horizon]:
        del ledger.sources[name]
    return rows


def to_bytes(ledger: Ledger) -> bytes:
    """The whole ledger in one record."""
    state = ledger.windows
    document = {
        "format": _FORMAT,
        "watermark_ns": state.watermark_ns,
        "counted_to": state.counted_to,
        "last_arrival_ns": ledger.last_arrival_ns,
        "sources": {n: [s.last_ns, s.seen.intervals] for n, s in ledger.sources.items()},
        "windows": [
            [
                key.start_s,
                key.seconds,
                window.final,
                sorted(window.dirty),
                [[*cohort, *_counts(tally)] for cohort, tally in window.cohorts.items()],
            ]
            for key, window in state.windows.items()
        ],
    }
    return zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 1)


def from_bytes(raw: bytes) -> Ledger:
    """What :func:`to_bytes` made.

    Raises:
        MeteringError: the record is of another format.
    """
    document = json.loads(zlib.decompress(raw))
    if document["format"] != _FORMAT:
        raise MeteringError(f"ledger format {document['format']!r} is not {_FORMAT}")
    windows = {}
    for start_s, seconds, final, dirty, cohorts in document["windows"]:
        windows[WindowKey(start_s, seconds)] = Window(
            cohorts={(c[0], c[1]): Tally(*c[2:]) for c in cohorts},
            dirty={(d[0], d[1]) for d in dirty},
            final=final,
        )
    return Ledger(
        windows=WindowState(windows, document["watermark_ns"], document["counted_to"]),
        sources={
            name: Source(SequenceSet([(a, b) for a, b in intervals]), last_ns)
            for name, (last_ns, intervals) in document["sources"].items()
        },
        last_arrival_ns=document["last_arrival_ns"],
    )

"""Hostile messages into the real stream: ``make fuzz-stream`` (``QUICK=1``, ``N=…``, ``SEED=…``).

A checked claim and no measurement of speed. Malformed, truncated, oversized, wrong and hostile
messages go into the usage topic of a real Kafka, with good ones between them, and the real
worker reads them. In the end each bad one must be on the dead-letter topic, once, by its
partition and offset, byte for byte, with the reason that its kind names
(``benchmarks/fuzz/*_kinds.py``); each good one in ClickHouse, once, in lines and windows; none in
both, none in neither. The worker must not have been restarted.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from benchmarks.fuzz.batches import PRICES
from benchmarks.fuzz.kinds import Fate
from benchmarks.fuzz.run import Outcome, fuzz
from benchmarks.report import Figure, Narrator, end, none_of, show
from streams.stack.config import StackConfig
from streams.stack.places import REPO
from streams.stack.stack import Stack

RESULTS = REPO / "build" / "results" / "fuzz_stream.json"
FULL, QUICK = 10**6, 20_000
MOST_MIB = 1024
"""What the worker's memory may come to."""


async def run(count: int, seed: int) -> dict[str, Figure]:
    say = Narrator()
    folder = Path(tempfile.mkdtemp(prefix="meter-fuzz-"))
    try:
        book = folder / "book.toml"
        book.write_text(PRICES)
        config = StackConfig(folder / "stack", price_book=book, preferred_ports=False)
        async with Stack(config, say, only=("worker",)) as stack:
            outcome = await fuzz(stack, count, seed, say)
        logs = sum(path.stat().st_size for path in (folder / "stack" / "logs").glob("worker*"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for example in [*outcome.letters.examples, *outcome.stored.examples]:
        say(example)
    return figures_of(outcome, count, logs)


def figures_of(outcome: Outcome, count: int, log_bytes: int) -> dict[str, Figure]:
    journal, letters, stored, seen = (
        outcome.journal,
        outcome.letters,
        outcome.stored,
        outcome.seen,
    )
    refused = len(journal) - journal.with_fate(Fate.STORED, Fate.DUPLICATE)
    duplicates = journal.with_fate(Fate.DUPLICATE)
    kinds = sum(1 for kind in journal.kinds if journal.sent[kind.name])
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in sorted(letters.by_reason.items()))
    peak = seen.peak_rss_mib
    return {
        "messages": Figure(len(journal), "messages", f"{count:,}", len(journal) == count),
        "kinds": Figure(kinds, "kinds", f"{len(journal.kinds)}", kinds == len(journal.kinds)),
        "handled to the end": Figure(int(outcome.counted), "topics", "1", outcome.counted),
        "sent in": Figure(round(outcome.sent_s, 1), "s"),
        "handled in": Figure(
            round(outcome.handled_s, 1), "s", spread=f"{count / outcome.handled_s:,.0f}/s"
        ),
        "worker restarted": none_of(outcome.restarts, "times"),
        "refused, each with its reason": Figure(
            letters.right, "letters", f"{refused:,}", letters.right == refused, reasons
        ),
        "refused for another reason": none_of(letters.other_reason, "letters"),
        "refused and altered": none_of(letters.altered, "letters"),
        "refused twice": none_of(letters.repeated, "letters"),
        "refused and should not be": none_of(letters.unexpected, "letters"),
        "neither refused nor stored": none_of(letters.missing + stored.missing, "messages"),
        "larger than a letter, kept in part": Figure(letters.cut, "letters"),
        "good batches stored": Figure(
            len(journal.batches) - stored.missing,
            "batches",
            f"{len(journal.batches):,}",
            stored.missing == 0,
            f"{stored.lines:,} lines",
        ),
        "stored and nobody sent it": none_of(stored.unknown, "batches"),
        "stored otherwise than sent": none_of(stored.wrong, "batches"),
        "windows that differ": Figure(
            stored.wrong_windows,
            "windows",
            "0",
            stored.wrong_windows == 0,
            f"of {stored.windows:,}",
        ),
        "duplicates dropped": Figure(
            seen.duplicates, "messages", f"{duplicates:,}", seen.duplicates == duplicates
        ),
        "worker's memory at rest": Figure(round(outcome.at_rest.rss_mib), "MiB"),
        "worker's memory at its peak": Figure(
            round(peak),
            "MiB",
            f"≤ {MOST_MIB:,}",
            peak <= MOST_MIB,
            f"{seen.rss_mib:,.0f} in the end",
        ),
        "worker's log": Figure(round(log_bytes / 1024**2, 1), "MiB"),
    }


def main() -> None:
    count = int(os.environ.get("N") or (QUICK if os.environ.get("QUICK") == "1" else FULL))
    seed = int(os.environ.get("SEED", "1"))
    figures = asyncio.run(run(count, seed))
    show(f"{count:,} messages, most of them hostile (seed {seed})", figures)
    end(RESULTS, figures)


if __name__ == "__main__":
    main()

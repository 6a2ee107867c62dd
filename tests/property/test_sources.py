"""Many sources: the ledger decides by the plain rule, visits and saves only what it has to."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import metering
from metering.cloudevents import USAGE_BATCH_TYPE, encode_headers
from metering.errors import MeteringError
from metering.ledger import Ledger, Policy, take
from metering.ledger_records import changed_records, ledger_of
from metering.messages import Message
from metering.prices import PriceBook, parse_price_book
from metering.usage import UsageBatch
from tests.property.plain_ledger import PlainLedger, plain_take

NS = 10**9
DAY_S = 86_400
NOON_NS = 1_780_000_000 * NS
POLICY = Policy()
BOOK: PriceBook = parse_price_book(
    '[[gpu_hour]]\nid = "p"\naccelerator = "cpu"\nregion = "*"\n'
    'usd_per_gpu_hour = "1.7"\neffective_from = 2020-01-01T00:00:00Z\n',
    "book",
)
MakeBatch = Callable[..., UsageBatch]
Arrival = tuple[int, int, float, float]
"""(source, sequence, seconds of the broker's stamp after noon, seconds that the event is older)"""
LITTLE = st.sampled_from([0, 0.5, 1, 3, 9, 10, 11, 29, 31, 33, 40])
MUCH = st.sampled_from([3 * DAY_S, 7 * DAY_S, 7 * DAY_S + 33, 8 * DAY_S, 20 * DAY_S])


@st.composite
def takes_of_many(draw: st.DrawFn) -> list[list[Arrival]]:
    """Stamps mostly go on, by little or by days, and now and then back."""
    stamp_s = 0.0
    takes = []
    for _ in range(draw(st.integers(1, 8))):
        arrivals = []
        for _ in range(draw(st.integers(1, 8))):
            stamp_s += draw(st.one_of(LITTLE, LITTLE, LITTLE, MUCH))
            back_s = draw(st.sampled_from([0, 0, 0, 0, 1, 12, 8 * DAY_S]))
            older_s = draw(st.one_of(st.sampled_from([-70, -59, 0]), LITTLE, LITTLE, MUCH))
            source, sequence = draw(st.integers(0, 5)), draw(st.integers(0, 6))
            arrivals.append((source, sequence, stamp_s - back_s, older_s))
        takes.append(arrivals)
    return takes


def messages_of(batch_of: MakeBatch, arrivals: Sequence[Arrival], first: int) -> list[Message]:
    found = []
    for offset, (source, sequence, stamp_s, older_s) in enumerate(arrivals, first):
        stamp_ns = NOON_NS + int(stamp_s * NS)
        batch = batch_of(sequence, source=f"s{source}", end_epoch_ns=stamp_ns - int(older_s * NS))
        headers = encode_headers(USAGE_BATCH_TYPE, batch.source, str(sequence), None)
        value = batch.model_dump_json().encode()
        found.append(Message(offset, stamp_ns, value, tuple(headers)))
    return found


def saved_of(saved: dict[bytes, bytes], ledger: Ledger) -> dict[bytes, bytes]:
    """What a compacted topic holds then."""
    kept: dict[bytes, bytes | None] = {**saved, **dict(changed_records(ledger))}
    return {key: value for key, value in kept.items() if value is not None}


@settings(max_examples=400)
@given(takes_of_many(), st.data())
@example([[(0, 0, 0, 8 * DAY_S)], [(1, 0, 0, 0), (0, 0, 5, 9 * DAY_S), (2, 0, 6, 9 * DAY_S)]], None)
def test_the_ledger_decides_as_the_plain_rule_does(
    batch_of: MakeBatch, takes: list[list[Arrival]], data: st.DataObject | None
) -> None:
    """Whatever came, with a restart between any two takes."""
    ledger, plain, saved = Ledger(), PlainLedger(), dict[bytes, bytes]()
    offset = 0
    for arrivals in takes:
        messages = messages_of(batch_of, arrivals, offset)
        offset += len(messages)
        decision = take(ledger, messages, BOOK, POLICY, NOON_NS)
        by_rule = plain_take(plain, messages, POLICY)
        assert decision.batches == len(by_rule.counted)
        assert decision.duplicates == len(by_rule.duplicates)
        late = {
            r.message.offset: int(r.detail.split("before the watermark ")[1].split(":")[0])
            for r in decision.refusals
            if r.reason == "late"
        }
        assert late.items() <= set(by_rule.counted)
        assert ledger.watermark_ns == plain.watermark_ns
        assert ledger.sources.missing == plain.missing
        assert {
            name: (
                s.last_ns,
                s.appended_ns,
                {n for a, b in s.seen.intervals for n in range(a, b + 1)},
            )
            for name, s in ledger.sources.items()
        } == {name: (s.last_ns, s.appended_ns, s.seen) for name, s in plain.sources.items()}
        saved = saved_of(saved, ledger)
        if data is None or data.draw(st.booleans()):
            again = ledger_of(saved)
            assert again == ledger
            ledger = again


def numbers(intervals: Sequence[tuple[int, int]]) -> set[int]:
    return {n for first, last in intervals for n in range(first, last + 1)}


def ledger_with(batch_of: MakeBatch, count: int) -> Ledger:
    """Of ``count`` sources that have all sent within the last second."""
    ledger = Ledger()
    arrivals = [(n, 0, n / count, 0.0) for n in range(count)]
    take(ledger, messages_of(batch_of, arrivals, 0), BOOK, POLICY, NOON_NS)
    changed_records(ledger)
    return ledger


def lines_run(do: Callable[[], object]) -> int:
    """How many lines of the domain were run, each turn of a loop counted."""
    folder, count = str(Path(metering.__file__).parent), 0

    def trace(frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(folder):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        do()
    finally:
        sys.settrace(before)
    return count


def test_a_take_visits_no_sources_but_those_that_it_is_from(batch_of: MakeBatch) -> None:
    counts = []
    for sources in (20, 1_000):
        ledger = ledger_with(batch_of, sources)
        arrivals = [(n, 1, 1 + n / 100, 0.0) for n in range(20)]  # each with a stamp of its own
        messages = messages_of(batch_of, arrivals, sources)
        counts.append(
            lines_run(
                lambda ledger=ledger, messages=messages: take(  # type: ignore[misc]
                    ledger, messages, BOOK, POLICY, NOON_NS
                )
            )
        )
    assert counts[1] < 1.1 * counts[0]


def test_what_is_saved_of_a_take_is_its_sources_and_a_head(batch_of: MakeBatch) -> None:
    ledger = ledger_with(batch_of, 1_000)
    take(ledger, messages_of(batch_of, [(7, 1, 2, 0), (9, 1, 2, 0)], 1_000), BOOK, POLICY, NOON_NS)
    changed = changed_records(ledger)
    assert [key for key, _ in changed] == [b"source/s7", b"source/s9", b"ledger"]
    assert sum(len(key) + len(value or b"") for key, value in changed) < 500


def test_a_source_that_is_forgotten_is_deleted_from_what_is_saved(batch_of: MakeBatch) -> None:
    ledger, saved = Ledger(), dict[bytes, bytes]()
    for offset, arrival in enumerate([(0, 0, 0, 0), (1, 0, 9 * DAY_S, 0)]):
        take(ledger, messages_of(batch_of, [arrival], offset), BOOK, POLICY, NOON_NS)
        saved = saved_of(saved, ledger)
    assert sorted(saved) == [b"ledger", b"source/s1"]


# --- what the version before has saved ------------------------------------------------------------

WHOLE = {
    "format": 2,
    "watermark_ns": NOON_NS - 2 * NS,
    "counted_to": 41,
    "takes": 17,
    "last_arrival_ns": NOON_NS + 5,
    "sources": {
        "s0": [NOON_NS, NOON_NS + 1, [[0, 3], [5, 9]]],
        "ü/\ud800": [NOON_NS - NS, NOON_NS, [[0, 0]]],
    },
}
"""A record as the version before wrote it: all of a ledger, under one key."""


def whole() -> dict[bytes, bytes]:
    return {b"ledger": zlib.compress(json.dumps(WHOLE, separators=(",", ":")).encode(), 1)}


def test_a_ledger_that_was_saved_whole_is_found_again_with_all_its_sources(
    batch_of: MakeBatch,
) -> None:
    ledger = ledger_of(whole())
    assert (ledger.watermark_ns, ledger.counted_to) == (NOON_NS - 2 * NS, 41)
    assert (ledger.takes, ledger.last_arrival_ns) == (17, NOON_NS + 5)
    assert ledger.sources.missing == 1
    arrivals = [(0, 3, 0, 0), (0, 4, 0, 0), (0, 9, 0, 0)]
    decision = take(ledger, messages_of(batch_of, arrivals, 42), BOOK, POLICY, NOON_NS)
    assert (decision.duplicates, decision.batches) == (2, 1)


def test_what_was_saved_whole_is_saved_by_source_with_the_next_take(batch_of: MakeBatch) -> None:
    ledger = ledger_of(whole())
    take(ledger, messages_of(batch_of, [(4, 0, 0, 0)], 42), BOOK, POLICY, NOON_NS)
    saved = saved_of(whole(), ledger)
    assert ledger_of(saved) == ledger
    assert sorted(ledger.sources) == sorted(["s0", "s4", "ü/\ud800"])
    assert len(saved) == 4


def test_the_version_before_refuses_a_head_that_it_does_not_know(batch_of: MakeBatch) -> None:
    """It reads the key ``ledger`` and looks at its format first. Without a record there it would
    begin with nothing, and count everything again."""
    head = dict(changed_records(ledger_with(batch_of, 1)))[b"ledger"]
    assert json.loads(zlib.decompress(head or b""))["format"] == 3


def test_a_head_of_another_version_is_refused_by_its_number() -> None:
    head = zlib.compress(json.dumps(WHOLE | {"format": 4}).encode())
    with pytest.raises(MeteringError, match="format 4"):
        ledger_of({b"ledger": head})

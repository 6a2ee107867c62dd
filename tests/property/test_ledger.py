"""The stream's decisions: replays, duplicates, disorder and crashes change no total."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.cloudevents import USAGE_BATCH_TYPE, encode_headers
from metering.costs import CostLine, WindowRow
from metering.ledger import Ledger, Policy, from_bytes, take, tell, to_bytes
from metering.messages import Message
from metering.prices import PriceBook, parse_price_book
from metering.usage import UsageBatch

NS = 10**9
NOON_NS = 1_780_000_000 * NS
POLICY = Policy()
BOOK: PriceBook = parse_price_book(
    '[[gpu_hour]]\nid = "p"\naccelerator = "cpu"\nregion = "*"\n'
    'usd_per_gpu_hour = "1.7"\neffective_from = 2020-01-01T00:00:00Z\n',
    "book",
)


def message(batch: UsageBatch, offset: int) -> Message:
    headers = encode_headers(USAGE_BATCH_TYPE, batch.source, str(batch.sequence), None)
    return Message(offset, batch.end_epoch_ns, batch.model_dump_json().encode(), tuple(headers))


def rows_by_window(rows: Sequence[WindowRow]) -> dict[tuple[object, ...], WindowRow]:
    """As ClickHouse keeps them: the row with the highest version replaces the others."""
    kept: dict[tuple[object, ...], WindowRow] = {}
    for row in rows:
        key = (row.window_seconds, row.window_start_ms, row.tenant, row.model)
        before = kept.get(key)
        if before is None or (row.counted_to, row.final) >= (before.counted_to, before.final):
            kept[key] = row
    return kept


def check_windows_equal_the_lines(lines: Sequence[CostLine], rows: Sequence[WindowRow]) -> None:
    requests: Counter[tuple[object, ...]] = Counter()
    cost: Counter[tuple[object, ...]] = Counter()
    for line in lines:
        for seconds in (10, 60):
            start_ms = line.time_ns // (seconds * NS) * seconds * 1000
            key = (seconds, start_ms, line.tenant, line.model)
            requests[key] += 1
            assert line.cost_usd is not None
            cost[key] += line.cost_usd  # type: ignore[assignment]
    kept = rows_by_window(rows)
    assert {key: row.requests for key, row in kept.items()} == dict(requests)
    assert {key: row.cost_usd for key, row in kept.items()} == dict(cost)


@st.composite
def deliveries(draw: st.DrawFn) -> list[tuple[int, int, str]]:
    """(sequence, ms after noon, tenant) in order of arrival, with redeliveries and disorder."""
    count = draw(st.integers(1, 25))
    sent = [
        (n, draw(st.integers(0, 90_000)), draw(st.sampled_from(["acme", "globex"])))
        for n in range(count)
    ]
    again = draw(st.lists(st.sampled_from(sent), max_size=10))
    return draw(st.permutations(sent + again))


@given(deliveries(), st.data())
def test_crashes_replays_duplicates_and_disorder_change_no_total(
    batch_of: Callable[..., UsageBatch], arrivals: list[tuple[int, int, str]], data: st.DataObject
) -> None:
    """Between any two takes the process may die: with its last save done or not."""
    messages = [
        message(
            batch_of(
                sequence,
                end_epoch_ns=NOON_NS + ms * 10**6,
                requests=[{"tenant": tenant}, {}],
            ),
            offset,
        )
        for offset, (sequence, ms, tenant) in enumerate(arrivals)
    ]
    ledger, saved, at = Ledger(), to_bytes(Ledger()), 0
    lines: dict[tuple[str, int, int], CostLine] = {}
    rows: list[WindowRow] = []
    while at < len(messages):
        size = data.draw(st.integers(1, len(messages) - at))
        now_ns = NOON_NS + 200 * NS
        decision = take(ledger, messages[at : at + size], BOOK, POLICY, now_ns)
        decision.rows = tell(ledger, POLICY, now_ns, provisional=data.draw(st.booleans()))
        for line in decision.lines:
            key = (line.source, line.sequence, line.position)
            assert lines.setdefault(key, line) == line, "a repeated write is the same write"
        rows += decision.rows
        fate = data.draw(st.sampled_from(["go on", "die before the save", "die after the save"]))
        if fate != "die before the save":
            saved = to_bytes(ledger)
            at += size
        if fate != "go on":
            ledger = from_bytes(saved)
            # Offsets are committed later than ledgers are saved: some come again.
            at = data.draw(st.integers(0, at))
            if data.draw(st.booleans()):
                at = max(at, ledger.windows.counted_to + 1)
    rows += tell(ledger, POLICY, NOON_NS + 10_000 * NS, provisional=True, caught_up=True)
    assert len(lines) == 2 * len({sequence for sequence, _, _ in arrivals})
    check_windows_equal_the_lines(list(lines.values()), rows)
    assert all(row.final for row in rows_by_window(rows).values())


@given(deliveries())
def test_a_ledger_is_what_it_was_after_saving_and_loading(
    batch_of: Callable[..., UsageBatch], arrivals: list[tuple[int, int, str]]
) -> None:
    ledger = Ledger()
    for offset, (sequence, ms, tenant) in enumerate(arrivals):
        batch = batch_of(sequence, end_epoch_ns=NOON_NS + ms * 10**6, requests=[{"tenant": tenant}])
        take(ledger, [message(batch, offset)], BOOK, POLICY, NOON_NS)
        tell(ledger, POLICY, NOON_NS + ms * 10**6, provisional=False)
    assert astuple(from_bytes(to_bytes(ledger))) == astuple(ledger)


@pytest.mark.parametrize(
    ("value", "reason", "named"),
    [
        (b"\x00\xff", "malformed", "message"),
        (b"{", "malformed", "message"),
        (b"[]", "invalid", "message"),
        (b"{}", "invalid", "source"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name_and_the_next_one_counted(
    batch_of: Callable[..., UsageBatch], value: bytes, reason: str, named: str
) -> None:
    ledger = Ledger()
    good = message(batch_of(), 8)
    decision = take(ledger, [Message(7, NOON_NS, value), good], BOOK, POLICY, NOON_NS)
    assert [r.reason for r in decision.refusals] == [reason]
    assert named in decision.refusals[0].detail
    assert decision.lines.count == 1


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"gpu_ns":90000000,"overlap', '"gpu_ns":90000001,"overlap', "gpu_ns"),
        ('"input_gpu_ns":30000000', '"input_gpu_ns":30000001', "input_gpu_ns"),
        ('"input_tokens":100', '"input_tokens":-1', "input_tokens"),
        ('"cached_input_tokens":0', '"cached_input_tokens":101', "cached_input_tokens"),
        ('"reasoning_tokens":0', '"reasoning_tokens":21', "reasoning_tokens"),
        ('"batch_size":1', '"batch_size":2', "batch_size"),
        ('"tenant":"acme"', '"tenant":""', "tenant"),
    ],
)
def test_usage_that_breaks_a_law_is_refused_and_the_field_is_named(
    batch_of: Callable[..., UsageBatch], old: str, new: str, named: str
) -> None:
    good = message(batch_of(), 0)
    broken = good.value.replace(old.encode(), new.encode())
    assert broken != good.value
    decision = take(Ledger(), [Message(0, NOON_NS, broken)], BOOK, POLICY, NOON_NS)
    (refusal,) = decision.refusals
    assert named in refusal.detail
    assert decision.lines.count == 0


def test_an_event_from_the_future_does_not_move_the_watermark(
    batch_of: Callable[..., UsageBatch],
) -> None:
    ledger = Ledger()
    ahead = batch_of(end_epoch_ns=NOON_NS + 3600 * NS)
    decision = take(
        ledger, [Message(0, NOON_NS, ahead.model_dump_json().encode())], BOOK, POLICY, NOON_NS
    )
    assert [r.reason for r in decision.refusals] == ["from-the-future"]
    assert ledger.windows.watermark_ns == 0


def test_a_late_event_corrects_its_window_and_a_very_late_one_is_reported(
    batch_of: Callable[..., UsageBatch],
) -> None:
    ledger = Ledger()
    at_s = [0, 30, 1, 400, 2]
    decisions = []
    for offset, seconds in enumerate(at_s):
        batch = batch_of(offset, end_epoch_ns=NOON_NS + seconds * NS)
        decision = take(ledger, [message(batch, offset)], BOOK, POLICY, NOON_NS)
        decision.rows = tell(ledger, POLICY, NOON_NS, provisional=False)
        decisions.append(decision)
    first = [r for r in decisions[1].rows if r.window_seconds == 10]
    corrected = [r for r in decisions[2].rows if r.window_seconds == 10]
    assert [(r.requests, r.final) for r in first] == [(1, True)]
    assert [(r.requests, r.final) for r in corrected] == [(2, True)]
    assert corrected[0].counted_to > first[0].counted_to
    assert [r.reason for r in decisions[4].refusals] == ["late"]
    assert decisions[4].lines.count == 1, "priced and stored all the same"


def test_a_topic_that_is_quiet_and_read_to_its_end_does_not_hold_its_windows_open(
    batch_of: Callable[..., UsageBatch],
) -> None:
    ledger = Ledger()
    take(ledger, [message(batch_of(), 0)], BOOK, POLICY, NOON_NS)
    assert tell(ledger, POLICY, NOON_NS + 2 * NS, provisional=False, caught_up=True) == []
    assert tell(ledger, POLICY, NOON_NS + 16 * NS, provisional=False) == [], "more may be waiting"
    rows = tell(ledger, POLICY, NOON_NS + 16 * NS, provisional=False, caught_up=True)
    assert [(r.window_seconds, r.final) for r in rows] == [(10, True)]


def test_state_is_bounded_by_retention(batch_of: Callable[..., UsageBatch]) -> None:
    ledger = Ledger()
    for n in range(400):
        batch = batch_of(n, end_epoch_ns=NOON_NS + n * 10 * NS)
        take(ledger, [message(batch, n)], BOOK, POLICY, NOON_NS)
        tell(ledger, POLICY, NOON_NS, provisional=False)
    retention_s = POLICY.retention_ns // NS
    assert len(ledger.windows.windows) <= retention_s // 10 + retention_s // 60 + 5

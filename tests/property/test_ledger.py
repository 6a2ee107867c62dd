"""The ledger of one partition: what is refused, dropped, late; and that it can be saved."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.cloudevents import USAGE_BATCH_TYPE, encode_headers
from metering.errors import UnreadableUsage
from metering.ledger import Ledger, Policy, Refusal, is_quiet, mark_of, take
from metering.ledger_records import changed_records, ledger_of
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


@given(deliveries())
def test_a_ledger_is_what_it_was_after_saving_and_loading(
    batch_of: Callable[..., UsageBatch], arrivals: list[tuple[int, int, str]]
) -> None:
    ledger = Ledger()
    for offset, (sequence, ms, tenant) in enumerate(arrivals):
        batch = batch_of(sequence, end_epoch_ns=NOON_NS + ms * 10**6, requests=[{"tenant": tenant}])
        take(ledger, [message(batch, offset)], BOOK, POLICY, NOON_NS)
    saved = {key: value for key, value in changed_records(ledger) if value is not None}
    assert ledger_of(saved) == ledger


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


def test_nothing_of_what_was_refused_stays_in_memory(batch_of: Callable[..., UsageBatch]) -> None:
    good = message(batch_of(), 0)
    broken = [
        good.value.replace(b'"batch_size":1', b'"batch_size":2'),
        good.value.replace(b'"input_tokens":100', b'"input_tokens":-1'),
        good.value[:-2],
    ]
    messages = [Message(n, NOON_NS, value) for n, value in enumerate(broken)]

    def errors() -> int:
        gc.collect()
        return sum(isinstance(o, (UnreadableUsage, Refusal)) for o in gc.get_objects())

    before = errors()
    decision = take(Ledger(), messages, BOOK, POLICY, NOON_NS)
    assert len(decision.refusals) == len(broken)
    del decision
    assert errors() == before


def test_an_event_from_the_future_does_not_move_the_watermark(
    batch_of: Callable[..., UsageBatch],
) -> None:
    ledger = Ledger()
    ahead = batch_of(end_epoch_ns=NOON_NS + 3600 * NS)
    decision = take(
        ledger, [Message(0, NOON_NS, ahead.model_dump_json().encode())], BOOK, POLICY, NOON_NS
    )
    assert [r.reason for r in decision.refusals] == ["from-the-future"]
    assert ledger.watermark_ns == 0


def test_an_event_that_came_too_late_for_a_window_is_reported_and_counts_in_the_longer_ones(
    batch_of: Callable[..., UsageBatch],
) -> None:
    ledger = Ledger()
    levels = []
    for offset, seconds in enumerate([0, 400, 2]):
        batch = batch_of(offset, end_epoch_ns=NOON_NS + seconds * NS)
        decision = take(ledger, [message(batch, offset)], BOOK, POLICY, NOON_NS)
        assert decision.lines.count == 1, "priced and stored all the same"
        levels.append(decision.additions.level.tolist())
    assert levels == [[0], [0], [2]]
    (refusal,) = decision.refusals
    assert refusal.reason == "late"
    assert "10 s, 60 s" in refusal.detail


def test_what_is_too_late_for_every_window_adds_nothing(
    batch_of: Callable[..., UsageBatch],
) -> None:
    ledger = Ledger()
    take(ledger, [message(batch_of(0), 0)], BOOK, POLICY, NOON_NS)
    old = batch_of(1, end_epoch_ns=NOON_NS - 3 * 86_400 * NS)
    decision = take(ledger, [message(old, 1)], BOOK, POLICY, NOON_NS)
    assert not decision.additions.cohorts
    assert decision.lines.count == 1
    assert [r.reason for r in decision.refusals] == ["late"]


def test_a_quiet_partition_is_moved_by_the_clock_and_tells_its_watermark_all_the_same(
    batch_of: Callable[..., UsageBatch],
) -> None:
    ledger = Ledger()
    take(ledger, [message(batch_of(), 0)], BOOK, POLICY, NOON_NS)
    assert not is_quiet(ledger, POLICY, NOON_NS + 2 * NS)
    assert is_quiet(ledger, POLICY, NOON_NS + 16 * NS)
    mark = mark_of(ledger, POLICY, partition=0, partitions=1, idle_since_ns=NOON_NS + 16 * NS)
    assert mark.closing_ns == NOON_NS + 11 * NS
    assert mark.watermark_ns == ledger.watermark_ns == NOON_NS - 2 * NS


def test_sources_are_forgotten_a_week_after_their_last_event(
    batch_of: Callable[..., UsageBatch],
) -> None:
    ledger = Ledger()
    for n in range(20):
        at_ns = NOON_NS + n * 86_400 * NS
        batch = batch_of(0, source=f"s{n}", end_epoch_ns=at_ns)
        take(ledger, [message(batch, n)], BOOK, POLICY, at_ns)
    assert sorted(ledger.sources) == sorted(f"s{n}" for n in range(12, 20))

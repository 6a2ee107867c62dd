"""A topic that is deleted and created again: nothing of the new one is taken for a replay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from metering.additions import Mark, decode, encode
from metering.epochs import Epoch, epoch_of
from metering.ledger import Ledger, Policy, mark_of, take
from metering.ledger_records import ledger_of
from metering.messages import Message
from metering.prices import PriceBook, parse_price_book
from metering.totals import Totals
from metering.totals_records import changed_records, totals_of
from metering.usage import UsageBatch
from metering.window_rows import WindowRows
from sinks.prometheus import WorkerMetrics
from streams.publisher import Record
from streams.topics import COST_WINDOWS
from streams.worker.totalling import Totalling
from tests.property.test_sources import whole
from tests.unit.test_pricing_partition import Bench, Sinks

NS = 10**9
NOON_NS = 1_780_000_000 * NS
OLD, NEW = "id of the old", "id of the new"
MakeBatch = Callable[..., UsageBatch]
BOOK: PriceBook = parse_price_book(
    '[[gpu_hour]]\nid = "p"\naccelerator = "cpu"\nregion = "*"\n'
    'usd_per_gpu_hour = "1.7"\neffective_from = 2020-01-01T00:00:00Z\n',
    "book",
)


@given(
    st.sampled_from(["", OLD, NEW]),
    st.integers(0, 50),
    st.integers(-1, 100),
    st.integers(0, 100),
)
def test_positions_never_go_back(known_id: str, begin: int, counted: int, end: int) -> None:
    known, counted_to = Epoch(known_id, begin), max(begin - 1, counted)
    epoch = epoch_of(known, NEW, counted_to, end)
    assert epoch.topic_id == NEW
    assert epoch.begin in {begin, counted_to + 1}
    if known_id == OLD:
        assert epoch.begin > counted_to
    if known_id == NEW:
        assert epoch == known
    assert epoch_of(epoch, NEW, counted_to, end) == epoch


@pytest.mark.parametrize(("end", "begin"), [(42, 0), (60, 0), (41, 42), (0, 42)])
def test_a_ledger_of_the_version_before_is_of_the_topic_unless_that_ends_before_it(
    end: int, begin: int
) -> None:
    ledger = ledger_of(whole())
    assert epoch_of(ledger.epoch, NEW, ledger.counted_to, end) == Epoch(NEW, begin)


def test_where_kafka_gives_no_ids_everything_is_as_it_was() -> None:
    assert epoch_of(Epoch("", 3), "", 41, 0) == Epoch("", 3)


def message(offset: int, batch: UsageBatch) -> Message:
    return Message(offset, batch.end_epoch_ns, batch.model_dump_json().encode())


async def test_usage_of_a_new_topic_is_counted_from_its_first_message_and_known_batches_are_not(
    tmp_path: Path, batch_of: MakeBatch
) -> None:
    before = Bench(tmp_path, ledger=Ledger(epoch=Epoch(OLD)))
    await before.pricing.handle([message(n, batch_of(n)) for n in range(5)])
    ledger = before.sinks.ledgers[-1]
    assert ledger.epoch == Epoch(OLD)

    ledger.epoch = epoch_of(ledger.epoch, NEW, ledger.counted_to, 3)
    sinks = Sinks()
    sinks.state = dict(before.sinks.state)
    after = Bench(tmp_path, sinks, ledger=ledger)
    # The first is passed over, and is read from the topic by its offset there.
    after.topic = {0: message(0, batch_of(5))}
    await after.pricing.handle([message(1, batch_of(4)), message(2, batch_of(6))])
    assert after.stretches == [(0, 1)]
    assert [line.sequence for line in sinks.lines] == [5, 6]
    assert after.metric("meter_duplicate_batches_total") == 1
    saved = sinks.ledgers[-1]
    assert (saved.epoch, saved.counted_to) == (Epoch(NEW, 5), 7)
    marks = [mark for mark, _ in before.sinks.added() + after.sinks.added()]
    assert [m.sequence for m in marks] == [1, 1, 2, 2, 3, 3]
    assert [m.counted_to for m in marks] == [4, 4, 5, 5, 7, 7]
    identities = [
        dict(r.headers)["ce_id"] for r in before.sinks.records + sinks.records if r.headers
    ]
    assert len(set(identities)) == len(identities), "no message has the identity of another"


async def test_the_end_of_a_new_topic_is_where_its_own_messages_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(epoch=Epoch(NEW, 100), counted_to=104, watermark_ns=NOON_NS)
    bench = Bench(tmp_path, ledger=ledger)
    monkeypatch.setattr("streams.worker.pricing.time.time_ns", lambda: NOON_NS + 60 * NS)
    bench.written_to = 6
    assert await bench.pricing.tick() == []
    bench.pricing.measure(NOON_NS, 6)
    assert bench.metric("meter_lag_messages", partition="0") == 1
    bench.written_to = 5
    assert await bench.pricing.tick()


class Kept:
    """The rows and the totals that were committed."""

    def __init__(self) -> None:
        self.rows: list[Record] = []
        self.state: dict[bytes, bytes] = {}
        self.versions: list[int] = []

    def totalling(self, totals: Totals) -> Totalling:
        async def write(rows: WindowRows) -> None:
            self.versions += [2 * told.counted_to + told.final for told in rows.told]

        async def commit(records: list[Record]) -> None:
            for r in records:
                if r.topic == COST_WINDOWS:
                    self.rows.append(r)
                elif r.value is None:
                    self.state.pop(r.key, None)
                else:
                    self.state[r.key] = r.value

        async def nothing(first: int, end: int) -> tuple[list[Message], int]:
            assert 0 <= first < end
            return [], end

        return Totalling(
            0,
            totals=totals,
            write_rows=write,
            commit=commit,
            read_stretch=nothing,
            metrics=WorkerMetrics(CollectorRegistry()),
        )


async def test_rows_of_a_new_topic_of_additions_replace_those_of_the_old_one(
    batch_of: MakeBatch,
) -> None:
    """An open window goes on: its row counts both, and has the higher version."""
    ledger, kept = Ledger(), Kept()
    values = []
    for n in range(6):
        decision = take(ledger, [message(n, batch_of(n))], BOOK, Policy(), NOON_NS)
        mark = mark_of(ledger, Policy(), partition=0, partitions=1)
        values.append(encode(mark, decision.additions))
    before = kept.totalling(Totals(epoch=Epoch(OLD)))
    await before.handle([Message(n, NOON_NS, values[n]) for n in range(4)], lambda: None)
    await before.tell()

    totals = totals_of(kept.state)
    assert totals.epoch == Epoch(OLD)
    totals.epoch = epoch_of(totals.epoch, NEW, totals.counted_to, 2)
    after = kept.totalling(totals)
    told_before = max(kept.versions)
    await after.handle([Message(n, NOON_NS, values[4 + n]) for n in range(2)], lambda: None)
    await after.tell()
    again = totals_of(kept.state)
    assert (again.epoch, again.counted_to) == (Epoch(NEW, 4), 5)
    assert min(kept.versions[-2:]) > told_before
    assert b'"requests":6,' in (kept.rows[-1].value or b"")


def test_totals_of_the_version_before_are_found_again() -> None:
    """Their head names no topic."""
    saved = dict(changed_records(Totals(counted_to=7, marks={0: Mark(0, 1, 3, 9, 5, 5)})))
    head = saved[b"head"] or b""
    old = head.replace(b',"topic_id":"","begin":0', b"")
    assert old != head
    totals = totals_of({b"head": old})
    assert (totals.counted_to, totals.epoch) == (7, Epoch())
    assert decode(encode(totals.marks[0], take(Ledger(), [], BOOK, Policy(), 0).additions))

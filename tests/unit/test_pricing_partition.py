"""One partition's pricing, with a ClickHouse and a Kafka that refuse."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from metering.additions import Additions, Mark, decode
from metering.costs import CostLine
from metering.ledger import Ledger, Policy
from metering.ledger_records import ledger_of
from metering.lines import CostLines
from metering.messages import Message
from metering.tenant_costs import lines_in
from metering.usage import UsageBatch
from metering.usage_columns import encode_columns
from sinks.prometheus import WorkerMetrics
from streams.publisher import Record
from streams.topics import ADDITIONS, COST_REQUESTS, LEDGERS, USAGE_DLQ
from streams.worker.additions_records import MOST_ROWS
from streams.worker.book import PriceBookFile
from streams.worker.pricing import STALLED_TICKS, Pricing
from streams.worker.transaction import Lost
from tests.unit.price_books import entry

NS = 10**9
NOON_NS = 1_780_000_000 * NS
WAYS = 2
MakeBatch = Callable[..., UsageBatch]


class Sinks:
    """ClickHouse and Kafka in one; ``refuse`` says how often each call fails before it is taken."""

    def __init__(self, **refuse: int) -> None:
        self.refuse = refuse
        self.journal: list[str] = []
        self.lines: list[CostLine] = []
        self.waiting = self.most_waiting = 0
        self.records: list[Record] = []
        self.ledgers: list[Ledger] = []
        self.state: dict[bytes, bytes] = {}

    def store(self, lines: CostLines) -> None:
        self.journal.append("lines")
        self.waiting += lines.count
        self.lines += lines

    async def room(self) -> None:
        self.most_waiting = max(self.most_waiting, self.waiting)
        self.waiting = 0

    async def commit(self, made: Iterable[Record]) -> None:
        records = list(made)
        self.journal.append("commit")
        if self.refuse.get("commit", 0) > 0:
            self.refuse["commit"] -= 1
            raise Lost("away")
        self.records += records
        saved = [r for r in records if r.topic == LEDGERS]
        assert {r.partition for r in saved} == {0}
        self.state.update({r.key: r.value for r in saved if r.value is not None})
        self.ledgers.append(ledger_of(self.state))

    def added(self) -> list[tuple[Mark, Additions]]:
        """Of one way and the other, one after the other."""
        return [decode(r.value or b"") for r in self.records if r.topic == ADDITIONS]

    def published_lines(self) -> list[CostLine]:
        return [
            line
            for r in self.records
            if r.topic == COST_REQUESTS
            for line in lines_in(r.value or b"")
        ]

    def published_to(self, topic: str) -> list[Record]:
        return [r for r in self.records if r.topic == topic]


class Bench:
    def __init__(self, folder: Path, sinks: Sinks | None = None, **options: object) -> None:
        self.sinks = Sinks() if sinks is None else sinks
        self.book = folder / "prices.toml"
        if not self.book.exists():
            self.book.write_text(entry("3.60"))
        self.registry = CollectorRegistry()
        self.written_to: int | None = 0
        self.topic: dict[int, Message] = {}
        self.stretches: list[tuple[int, int]] = []
        ledger = options.get("ledger")
        assert ledger is None or isinstance(ledger, Ledger)
        self.pricing = Pricing(
            0,
            partitions=3,
            ways=WAYS,
            ledger=Ledger() if ledger is None else ledger,
            prices=PriceBookFile(self.book),
            store=self.sinks.store,
            room=self.sinks.room,
            commit=self.sinks.commit,
            end_offset=self.end_offset,
            read_stretch=self.read_stretch,
            metrics=WorkerMetrics(self.registry),
            policy=Policy(),
        )

    async def end_offset(self, partition: int) -> int | None:
        assert partition == 0
        return self.written_to

    async def read_stretch(self, first: int, end: int) -> tuple[list[Message], int]:
        """Two offsets at a time, of those that the topic still has."""
        assert first < end
        self.stretches.append((first, end))
        stop = min(end, first + 2)
        return [self.topic[n] for n in range(first, stop) if n in self.topic], stop

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def message(offset: int, batch: UsageBatch) -> Message:
    return Message(offset, batch.end_epoch_ns, batch.model_dump_json().encode())


# --- the order, and what is retried --------------------------------------------------------------


async def test_lines_go_to_the_store_and_all_the_rest_is_committed_at_once(
    bench: Bench, batch_of: MakeBatch
) -> None:
    await bench.pricing.handle([message(0, batch_of(0)), message(1, batch_of(1))])
    assert bench.sinks.journal == ["lines", "commit"]
    assert [(line.sequence, line.position) for line in bench.sinks.lines] == [(0, 0), (1, 0)]
    assert bench.sinks.published_lines() == bench.sinks.lines
    assert bench.sinks.ledgers[0].counted_to == 1
    topics = [r.topic for r in bench.sinks.records]
    assert topics == [COST_REQUESTS, ADDITIONS, ADDITIONS, LEDGERS, LEDGERS]


async def test_what_can_not_be_committed_is_for_the_owner_to_begin_again(
    tmp_path: Path, batch_of: MakeBatch
) -> None:
    bench = Bench(tmp_path, Sinks(commit=1))
    with pytest.raises(Lost):
        await bench.pricing.handle([message(0, batch_of(0))])
    assert bench.metric("meter_batches_total") == 0
    assert bench.sinks.ledgers == []


async def test_what_may_not_have_been_stored_is_stored_again_and_nothing_else_is_done(
    tmp_path: Path, batch_of: MakeBatch
) -> None:
    """The worker before this one had committed all five, and died with lines in its store."""
    messages = [message(n, batch_of(n % 4)) for n in range(5)]  # the last is a duplicate
    messages[2] = Message(2, NOON_NS, b"{not json")
    before = Bench(tmp_path)
    await before.pricing.handle(messages)
    after = Bench(tmp_path, ledger=before.sinks.ledgers[-1])
    after.topic = {m.offset: m for m in messages}
    await after.pricing.store_again(1)
    stored = {(line.source, line.sequence, line.position): line for line in after.sinks.lines}
    assert sorted(sequence for _, sequence, _ in stored) == [0, 1, 3]
    assert all(line in before.sinks.lines for line in stored.values()), "the same lines"
    assert after.sinks.journal == ["lines", "lines"]
    assert after.sinks.records == []
    await after.pricing.store_again(5)
    assert len(after.stretches) == 2


# --- crashes and redelivery ----------------------------------------------------------------------


async def test_a_crash_before_the_save_repeats_the_same_rows_under_the_same_identities(
    tmp_path: Path, batch_of: MakeBatch
) -> None:
    messages = [message(n, batch_of(n, end_epoch_ns=NOON_NS + n * 8 * NS)) for n in range(5)]
    before, after = Bench(tmp_path), Bench(tmp_path)
    await before.pricing.handle(messages)
    await after.pricing.handle(messages[:2])  # cut in other places, too
    await after.pricing.handle(messages[2:])
    assert after.sinks.lines == before.sinks.lines

    assert after.sinks.published_lines() == before.sinks.published_lines() == before.sinks.lines


async def test_lines_are_published_by_tenant_under_an_identity_of_their_own(
    bench: Bench, batch_of: MakeBatch
) -> None:
    requests = [{"tenant": "acme"}, {"tenant": "globex"}, {"tenant": "acme"}]
    await bench.pricing.handle(
        [message(0, batch_of(0, requests=requests)), message(1, batch_of(1))]
    )
    records = [r for r in bench.sinks.records if r.topic == COST_REQUESTS]
    assert [r.key for r in records] == [b"acme", b"globex"]
    assert [dict(r.headers)["ce_id"] for r in records] == [b"0@0-1/0", b"0@0-1/1"]
    acme = [(line.sequence, line.position) for line in lines_in(records[0].value)]
    assert acme == [(0, 0), (0, 2), (1, 0)]


async def test_a_processor_that_begins_with_the_saved_ledger_does_not_count_what_that_has(
    tmp_path: Path, batch_of: MakeBatch
) -> None:
    messages = [message(0, batch_of(0)), message(1, batch_of(1))]
    before = Bench(tmp_path)
    await before.pricing.handle(messages)
    after = Bench(tmp_path, ledger=before.sinks.ledgers[-1])
    await after.pricing.handle(messages)
    assert after.sinks.lines == []
    assert after.sinks.records == []
    assert after.metric("meter_duplicate_batches_total") == 0


async def test_a_batch_that_comes_again_at_another_offset_is_dropped_and_counted(
    bench: Bench, batch_of: MakeBatch
) -> None:
    await bench.pricing.handle([message(0, batch_of(0))])
    await bench.pricing.handle([message(1, batch_of(0)), message(2, batch_of(1))])
    assert [line.sequence for line in bench.sinks.lines] == [0, 1]
    assert bench.metric("meter_duplicate_batches_total") == 1
    assert bench.metric("meter_counted_to_offset", partition="0") == 2


async def test_messages_that_were_passed_over_are_read_from_the_topic_and_counted_in_their_order(
    bench: Bench, batch_of: MakeBatch
) -> None:
    bench.topic = {n: message(n, batch_of(n)) for n in range(12)}
    await bench.pricing.handle([bench.topic[n] for n in (0, 1, 2)])
    assert bench.stretches == []
    await bench.pricing.handle([bench.topic[n] for n in (6, 7, 9, 10)])
    assert bench.stretches == [(3, 6), (5, 6), (8, 9)]
    assert [line.sequence for line in bench.sinks.lines] == list(range(11))
    assert bench.metric("meter_reread_messages_total") == 4
    assert bench.sinks.ledgers[-1].counted_to == 10
    await bench.pricing.handle([bench.topic[n] for n in (3, 4, 5, 11)])  # Faust has them after all
    assert [line.sequence for line in bench.sinks.lines] == list(range(12))
    assert len(bench.stretches) == 3


async def test_offsets_at_which_the_topic_has_nothing_are_passed(
    bench: Bench, batch_of: MakeBatch
) -> None:
    """It has deleted them, or they are a transaction's markers."""
    bench.topic = {9: message(9, batch_of(9))}
    await bench.pricing.handle([message(10, batch_of(10)), message(12, batch_of(12))])
    assert [line.sequence for line in bench.sinks.lines] == [9, 10, 12]
    assert bench.metric("meter_reread_messages_total") == 1


async def test_what_was_passed_over_is_durable_before_what_comes_after_it_is_counted(
    bench: Bench, batch_of: MakeBatch
) -> None:
    bench.topic = {0: message(0, batch_of(0))}
    await bench.pricing.handle([message(1, batch_of(1))])
    assert [ledger.counted_to for ledger in bench.sinks.ledgers] == [0, 1]
    assert bench.sinks.journal == ["lines", "commit"] * 2


# --- refusals ------------------------------------------------------------------------------------


async def test_a_refused_message_goes_to_the_dead_letters_byte_for_byte_with_its_reason(
    bench: Bench, batch_of: MakeBatch
) -> None:
    garbage = b"\x00\xff{not json\n"
    await bench.pricing.handle(
        [
            message(0, batch_of(0)),
            Message(1, NOON_NS, garbage, (("ce_id", b"7"), ("trace", b"\xfe"))),
            message(2, batch_of(1)),
        ]
    )
    (letter,) = bench.sinks.published_to(USAGE_DLQ)
    headers = dict(letter.headers)
    assert letter.value == garbage
    assert headers["meter_reason"] == b"malformed"
    assert headers["meter_detail"]
    assert headers["ce_id"] == b"0@1"  # partition and offset
    assert (headers["original_ce_id"], headers["original_trace"]) == (b"7", b"\xfe")
    assert [line.sequence for line in bench.sinks.lines] == [0, 1]
    assert bench.metric("meter_refused_messages_total", reason="malformed") == 1
    assert bench.metric("meter_batches_total") == 2


async def test_each_kind_of_refusal_has_its_reason(bench: Bench, batch_of: MakeBatch) -> None:
    sound = batch_of(0)
    torn = sound.model_dump(mode="json")
    torn["gpu_ns"] += 1
    await bench.pricing.handle(
        [
            Message(0, NOON_NS, b""),
            Message(1, NOON_NS, json.dumps(torn).encode()),
            Message(2, NOON_NS, sound.model_dump_json().encode(), (("ce_type", b"another"),)),
            Message(3, NOON_NS - 61 * NS, sound.model_dump_json().encode()),
        ]
    )
    letters = bench.sinks.published_to(USAGE_DLQ)
    reasons = [dict(letter.headers)["meter_reason"] for letter in letters]
    assert reasons == [b"malformed", b"invalid", b"wrong-type", b"from-the-future"]
    assert bench.sinks.lines == []
    assert bench.sinks.ledgers[-1].counted_to == 3


async def test_a_late_batch_is_stored_and_a_letter_says_that_its_windows_are_not(
    bench: Bench, batch_of: MakeBatch
) -> None:
    await bench.pricing.handle([message(0, batch_of(0, end_epoch_ns=NOON_NS + 300 * NS))])
    await bench.pricing.handle([message(1, batch_of(1))])
    assert [line.sequence for line in bench.sinks.lines] == [0, 1]
    assert [dict(r.headers)["meter_reason"] for r in bench.sinks.published_to(USAGE_DLQ)] == [
        b"late"
    ]


# --- windows, time and metrics -------------------------------------------------------------------


async def test_every_way_is_told_what_is_added_to_its_cohorts_and_how_far_the_partition_is(
    bench: Bench, batch_of: MakeBatch
) -> None:
    requests = [{"tenant": f"t{n}"} for n in range(8)]
    await bench.pricing.handle([message(0, batch_of(0, requests=requests))])
    await bench.pricing.handle([message(1, batch_of(1, end_epoch_ns=NOON_NS + 12 * NS))])
    first, second, third, fourth = bench.sinks.added()
    cohorts = [*first[1].cohorts, *second[1].cohorts]
    assert sorted(cohorts) == [(f"t{n}", "tiny", "local") for n in range(8)]
    assert first[1].cohorts
    assert second[1].cohorts
    assert [mark.sequence for mark, _ in (first, second, third, fourth)] == [1, 1, 2, 2]
    assert third[0].closing_ns == third[0].watermark_ns == NOON_NS + 10 * NS
    assert (third[0].partition, third[0].partitions, third[0].counted_to) == (0, 3, 1)


async def test_a_partition_that_has_gone_quiet_is_moved_by_the_clock(
    bench: Bench, batch_of: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = NOON_NS + NS
    monkeypatch.setattr("streams.worker.pricing.time.time_ns", lambda: now_ns)
    await bench.pricing.handle([message(0, batch_of(0))])
    bench.written_to = 1
    assert await bench.pricing.tick() == []
    bench.pricing.measure(now_ns, bench.written_to)
    assert bench.metric("meter_watermark_delay_seconds", partition="0") == pytest.approx(3.0)
    now_ns = NOON_NS + 15 * NS + 1
    records = await bench.pricing.tick()
    assert [(r.topic, r.partition) for r in records] == [(ADDITIONS, 0), (ADDITIONS, 1)]
    mark, additions = decode(records[0].value or b"")
    assert (mark.sequence, mark.closing_ns) == (-1, NOON_NS + 10 * NS + 1)
    assert mark.watermark_ns == NOON_NS - 2 * NS
    assert not additions.cohorts
    bench.pricing.measure(now_ns, bench.written_to)
    assert bench.metric("meter_watermark_delay_seconds", partition="0") == pytest.approx(5.0)


async def test_while_messages_are_waiting_the_clock_moves_nothing(
    bench: Bench, batch_of: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restart: the topic seems quiet because nothing has been read yet."""
    await bench.pricing.handle([message(0, batch_of(0))])
    monkeypatch.setattr("streams.worker.pricing.time.time_ns", lambda: 2 * NOON_NS)
    bench.written_to = 2
    assert await bench.pricing.tick() == []
    bench.pricing.measure(2 * NOON_NS, bench.written_to)
    assert bench.metric("meter_lag_messages", partition="0") == 1
    bench.written_to = 1
    assert await bench.pricing.tick()


async def test_while_kafka_does_not_say_where_the_topic_ends_the_clock_moves_nothing(
    bench: Bench, batch_of: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.pricing.handle([message(0, batch_of(0))])
    monkeypatch.setattr("streams.worker.pricing.time.time_ns", lambda: 2 * NOON_NS)
    bench.written_to = None
    for _ in range(2 * STALLED_TICKS):
        assert await bench.pricing.tick() == []
    assert bench.stretches == []


async def test_what_is_at_the_topics_end_and_does_not_come_is_read_after_a_while(
    bench: Bench, batch_of: MakeBatch
) -> None:
    """Passed over, and nothing comes behind it that would show it."""
    await bench.pricing.handle([message(0, batch_of(0))])
    bench.topic = {1: message(1, batch_of(1))}
    bench.written_to = 2
    later_ns = time.time_ns() + 60 * NS
    with pytest.MonkeyPatch.context() as clock:
        clock.setattr("streams.worker.pricing.time.time_ns", lambda: later_ns)
        for _ in range(STALLED_TICKS - 1):
            await bench.pricing.tick()
        assert bench.stretches == []
        await bench.pricing.tick()
    assert bench.stretches == [(1, 2)]
    assert [line.sequence for line in bench.sinks.lines] == [0, 1]


async def test_an_end_at_which_the_topic_has_nothing_holds_nothing_back(
    bench: Bench, batch_of: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind the marker of a transaction."""
    await bench.pricing.handle([message(0, batch_of(0))])
    monkeypatch.setattr("streams.worker.pricing.time.time_ns", lambda: 2 * NOON_NS)
    bench.written_to = 2
    for _ in range(STALLED_TICKS + 1):
        marks = await bench.pricing.tick()
    assert marks


async def test_a_tick_touches_no_sink(bench: Bench) -> None:
    await bench.pricing.tick()
    assert bench.sinks.journal == []
    assert bench.metric("meter_price_book_ok") == 1


async def test_metrics_count_requests_tokens_gpu_time_and_cost(
    bench: Bench, batch_of: MakeBatch
) -> None:
    batch = batch_of(0, gpu_ns=2 * NS, requests=[{"input_tokens": 7, "output_tokens": 5}, {}])
    unpriced = batch_of(1, accelerator="a secret chip", model="big", gpu_ns=NS)
    await bench.pricing.handle([message(0, batch), message(1, unpriced)])
    assert bench.metric("meter_requests_total", model="tiny", pricing_status="priced") == 2
    assert bench.metric("meter_requests_total", model="big", pricing_status="unpriced") == 1
    assert bench.metric("meter_tokens_total", model="tiny", direction="input") == 107
    assert bench.metric("meter_tokens_total", model="tiny", direction="output") == 25
    assert bench.metric("meter_gpu_seconds_total", model="tiny") == 2.0
    assert bench.metric("meter_cost_usd_total", model="tiny") == pytest.approx(0.002)
    assert bench.metric("meter_cost_usd_total", model="big") is None
    assert bench.metric("meter_write_seconds_count") == 1


async def test_a_flood_of_refusals_is_a_line_of_the_log_for_each_reason(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    flood = [Message(n, NOON_NS, b"{" if n % 2 else b"[]") for n in range(300)]
    await bench.pricing.handle(flood)
    said = [r.getMessage() for r in caplog.records if "refused" in r.getMessage()]
    assert [line[:32] for line in said] == [
        "message at offset 0 refused: inv",
        "message at offset 1 refused: mal",
    ]
    assert all("149 more of this reason" in line for line in said)
    assert len(bench.sinks.published_to(USAGE_DLQ)) == 300
    assert bench.metric("meter_refused_messages_total", reason="malformed") == 150


def rewrite(book: Path, content: str | bytes) -> None:
    """In one step, as an editor or a deployment does it."""
    new = book.with_suffix(".new")
    new.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(new, book)


async def test_a_price_that_changes_is_taken_by_event_time_from_then_on(
    bench: Bench, batch_of: MakeBatch
) -> None:
    await bench.pricing.handle([message(0, batch_of(0, gpu_ns=NS))])
    rewrite(bench.book, entry("3.60") + entry("7.20", "2026-05-28T20:26:45Z"))
    before, at = NOON_NS + 4 * NS, NOON_NS + 5 * NS
    await bench.pricing.handle(
        [
            message(1, batch_of(1, gpu_ns=NS, end_epoch_ns=at)),
            message(2, batch_of(2, gpu_ns=NS, end_epoch_ns=before)),
        ]
    )
    costs = [line.cost_usd for line in bench.sinks.lines]
    assert costs == [Decimal("0.001"), Decimal("0.002"), Decimal("0.001")]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[[gpu_hour]",
        '[[gpu_hour]]\nid = "no price"\n',
        entry("3.60") + entry("4"),
        entry("3.60").replace("cpu", "für").encode("latin-1"),
        b"\xff\xfe\x00",
    ],
)
async def test_a_book_that_has_become_unreadable_leaves_the_one_before_it_in_use(
    bench: Bench, batch_of: MakeBatch, content: str | bytes
) -> None:
    rewrite(bench.book, content)
    await bench.pricing.handle([message(0, batch_of(0, gpu_ns=NS))])
    await bench.pricing.tick()
    assert [line.cost_usd for line in bench.sinks.lines] == [Decimal("0.001")]
    assert bench.metric("meter_price_book_ok") == 0
    rewrite(bench.book, entry("7.20"))
    await bench.pricing.handle([message(1, batch_of(1, gpu_ns=NS))])
    await bench.pricing.tick()
    assert bench.sinks.lines[-1].cost_usd == Decimal("0.002")
    assert bench.metric("meter_price_book_ok") == 1


async def test_a_take_of_many_cohorts_is_sent_in_pieces_that_follow_one_another(
    tmp_path: Path, batch_of: MakeBatch
) -> None:
    bench = Bench(tmp_path)
    count = 2 * WAYS * MOST_ROWS
    for offset in range(2):
        batch = batch_of(offset, requests=[{"tenant": f"t{n}"} for n in range(count)])
        await bench.pricing.handle([Message(offset, NOON_NS, encode_columns(batch))])
    added = bench.sinks.added()
    assert len(added) > 2 * WAYS
    assert all(len(additions.cohorts) <= MOST_ROWS for _, additions in added)
    assert sum(len(additions.cohorts) for _, additions in added) == 2 * count
    sequences = [mark.sequence for mark, _ in added]
    assert sequences == [n for n in range(1, len(added) // WAYS + 1) for _ in range(WAYS)]
    assert bench.sinks.ledgers[-1].takes == sequences[-1]

"""One partition's processor, with a ClickHouse and a Kafka that refuse; and its price book."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from metering.costs import CostLine, WindowRow
from metering.errors import InvalidPriceBook, SinkUnavailable
from metering.ledger import Ledger, Policy, from_bytes
from metering.lines import CostLines
from metering.messages import Message
from metering.tenant_costs import lines_in
from metering.usage import UsageBatch
from sinks.prometheus import WorkerMetrics
from streams.publisher import Record
from streams.topics import COST_REQUESTS, COST_WINDOWS, USAGE_DLQ
from streams.worker import processor as processor_module
from streams.worker.book import PriceBookFile
from streams.worker.processor import STALLED_TICKS, Processor

NS = 10**9
NOON_NS = 1_780_000_000 * NS
MakeBatch = Callable[..., UsageBatch]
LONG_AGO = "2020-01-01T00:00:00Z"


def entry(usd_per_gpu_hour: str, effective_from: str = LONG_AGO, accelerator: str = "cpu") -> str:
    return (
        f'[[gpu_hour]]\nid = "{accelerator} from {effective_from}"\naccelerator = "{accelerator}"\n'
        f'region = "*"\nusd_per_gpu_hour = "{usd_per_gpu_hour}"\n'
        f"effective_from = {effective_from}\n"
    )


class Sinks:
    """ClickHouse and Kafka in one; ``refuse`` says how often each call fails before it is taken."""

    def __init__(self, **refuse: int) -> None:
        self.refuse = refuse
        self.journal: list[str] = []
        self.attempts: list[list[CostLine]] = []
        self.lines: list[CostLine] = []
        self.rows: list[WindowRow] = []
        self.records: list[Record] = []
        self.saved: list[bytes] = []
        self.hold: threading.Event | None = None

    def _called(self, name: str, rows: int) -> None:
        self.journal.append(name)
        if self.refuse.get(name, 0) > 0:
            self.refuse[name] -= 1
            raise SinkUnavailable(name, rows, "away")

    def write_lines(self, lines: CostLines) -> None:
        if self.hold is not None:
            self.hold.wait(20)
        self.attempts.append(list(lines))
        self._called("lines", lines.count)
        self.lines += lines

    def write_windows(self, rows: Sequence[WindowRow]) -> None:
        self._called("windows", len(rows))
        self.rows += rows

    async def publish(self, records: Sequence[Record]) -> None:
        self._called("publish", len(records))
        self.records += records

    async def save(self, partition: int, snapshot: bytes) -> None:
        assert partition == 0
        self._called("save", 1)
        self.saved.append(snapshot)

    def published_lines(self) -> list[CostLine]:
        return [
            line for r in self.records if r.topic == COST_REQUESTS for line in lines_in(r.value)
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
        self.processor = Processor(
            0,
            ledger=Ledger() if ledger is None else ledger,
            prices=PriceBookFile(self.book),
            writer=self.sinks,  # type: ignore[arg-type]  # a fake
            publisher=self.sinks,  # type: ignore[arg-type]  # a fake
            save=self.sinks.save,
            end_offset=self.end_offset,
            read_stretch=self.read_stretch,
            metrics=WorkerMetrics(self.registry),
            policy=Policy(),
        )

    async def end_offset(self, partition: int) -> int | None:
        assert partition == 0
        return self.written_to

    async def read_stretch(self, partition: int, first: int, end: int) -> tuple[list[Message], int]:
        """Two offsets at a time, of those that the topic still has."""
        assert partition == 0
        assert first < end
        self.stretches.append((first, end))
        stop = min(end, first + 2)
        return [self.topic[n] for n in range(first, stop) if n in self.topic], stop

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor_module, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(processor_module, "RETRY_MOST_S", 0.002)


def message(offset: int, batch: UsageBatch) -> Message:
    return Message(offset, batch.end_epoch_ns, batch.model_dump_json().encode())


# --- the order, and what is retried --------------------------------------------------------------


async def test_lines_and_windows_are_written_then_published_then_the_ledger_is_saved(
    bench: Bench, batch_of: MakeBatch
) -> None:
    await bench.processor.handle([message(0, batch_of(0)), message(1, batch_of(1))])
    assert bench.sinks.journal == ["lines", "windows", "publish", "save"]
    assert [(line.sequence, line.position) for line in bench.sinks.lines] == [(0, 0), (1, 0)]
    assert bench.sinks.published_lines() == bench.sinks.lines
    assert from_bytes(bench.sinks.saved[0]).windows.counted_to == 1


@pytest.mark.parametrize(
    ("refused", "journal"),
    [
        ("lines", ["lines"] * 3 + ["lines", "windows", "publish", "save"]),
        ("windows", ["lines", "windows"] * 3 + ["lines", "windows", "publish", "save"]),
        (
            "publish",
            ["lines", "windows", "publish"] * 3 + ["lines", "windows", "publish", "save"],
        ),
    ],
)
async def test_a_refused_write_is_tried_again_until_it_is_taken_and_saved_only_then(
    tmp_path: Path, batch_of: MakeBatch, refused: str, journal: list[str]
) -> None:
    bench = Bench(tmp_path, Sinks(**{refused: 3}))
    await bench.processor.handle([message(0, batch_of(0))])
    assert bench.sinks.journal == journal
    assert bench.sinks.attempts == [bench.sinks.attempts[0]] * len(bench.sinks.attempts)
    assert bench.metric("meter_write_failures_total") == 3
    assert bench.metric("meter_batches_total") == 1


async def test_while_a_sink_stays_away_nothing_is_saved_and_nothing_returns(
    tmp_path: Path, batch_of: MakeBatch
) -> None:
    bench = Bench(tmp_path, Sinks(publish=10**9))
    handling = asyncio.create_task(bench.processor.handle([message(0, batch_of(0))]))
    _, pending = await asyncio.wait({handling}, timeout=0.2)
    assert pending
    handling.cancel()
    await asyncio.gather(handling, return_exceptions=True)
    assert bench.sinks.saved == []
    assert bench.metric("meter_batches_total") == 0


async def test_an_error_that_is_no_refusal_is_not_swallowed(
    tmp_path: Path, batch_of: MakeBatch
) -> None:
    bench = Bench(tmp_path)

    def broken(_: CostLines) -> None:
        raise ZeroDivisionError

    bench.sinks.write_lines = broken  # type: ignore[method-assign]  # on purpose
    with pytest.raises(ZeroDivisionError):
        await bench.processor.handle([message(0, batch_of(0))])
    assert bench.sinks.saved == []


async def test_a_ledger_that_can_not_be_saved_is_an_error_of_the_caller(
    tmp_path: Path, batch_of: MakeBatch
) -> None:
    bench = Bench(tmp_path, Sinks(save=1))
    with pytest.raises(SinkUnavailable):
        await bench.processor.handle([message(0, batch_of(0))])


# --- crashes and redelivery ----------------------------------------------------------------------


async def test_a_crash_before_the_save_repeats_the_same_rows_under_the_same_identities(
    tmp_path: Path, batch_of: MakeBatch
) -> None:
    messages = [message(n, batch_of(n, end_epoch_ns=NOON_NS + n * 8 * NS)) for n in range(5)]
    before, after = Bench(tmp_path), Bench(tmp_path)
    await before.processor.handle(messages)
    await after.processor.handle(messages[:2])  # cut in other places, too
    await after.processor.handle(messages[2:])
    assert after.sinks.lines == before.sinks.lines

    assert after.sinks.published_lines() == before.sinks.published_lines() == before.sinks.lines


async def test_lines_are_published_by_tenant_under_an_identity_of_their_own(
    bench: Bench, batch_of: MakeBatch
) -> None:
    requests = [{"tenant": "acme"}, {"tenant": "globex"}, {"tenant": "acme"}]
    await bench.processor.handle(
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
    await before.processor.handle(messages)
    after = Bench(tmp_path, ledger=from_bytes(before.sinks.saved[-1]))
    await after.processor.handle(messages)
    assert after.sinks.lines == []
    assert after.sinks.records == []
    assert after.metric("meter_duplicate_batches_total") == 0


async def test_a_batch_that_comes_again_at_another_offset_is_dropped_and_counted(
    bench: Bench, batch_of: MakeBatch
) -> None:
    await bench.processor.handle([message(0, batch_of(0))])
    await bench.processor.handle([message(1, batch_of(0)), message(2, batch_of(1))])
    assert [line.sequence for line in bench.sinks.lines] == [0, 1]
    assert bench.metric("meter_duplicate_batches_total") == 1
    assert bench.metric("meter_counted_to_offset", partition="0") == 2


async def test_messages_that_were_passed_over_are_read_from_the_topic_and_counted_in_their_order(
    bench: Bench, batch_of: MakeBatch
) -> None:
    bench.topic = {n: message(n, batch_of(n)) for n in range(12)}
    await bench.processor.handle([bench.topic[n] for n in (0, 1, 2)])
    assert bench.stretches == []
    await bench.processor.handle([bench.topic[n] for n in (6, 7, 9, 10)])
    assert bench.stretches == [(3, 6), (5, 6), (8, 9)]
    assert [line.sequence for line in bench.sinks.lines] == list(range(11))
    assert bench.metric("meter_reread_messages_total") == 4
    assert from_bytes(bench.sinks.saved[-1]).windows.counted_to == 10
    await bench.processor.handle(
        [bench.topic[n] for n in (3, 4, 5, 11)]
    )  # Faust has them after all
    assert [line.sequence for line in bench.sinks.lines] == list(range(12))
    assert len(bench.stretches) == 3


async def test_offsets_at_which_the_topic_has_nothing_are_passed(
    bench: Bench, batch_of: MakeBatch
) -> None:
    """It has deleted them, or they are a transaction's markers."""
    bench.topic = {9: message(9, batch_of(9))}
    await bench.processor.handle([message(10, batch_of(10)), message(12, batch_of(12))])
    assert [line.sequence for line in bench.sinks.lines] == [9, 10, 12]
    assert bench.metric("meter_reread_messages_total") == 1


async def test_what_was_passed_over_is_durable_before_what_comes_after_it_is_counted(
    bench: Bench, batch_of: MakeBatch
) -> None:
    bench.topic = {0: message(0, batch_of(0))}
    await bench.processor.handle([message(1, batch_of(1))])
    assert [from_bytes(s).windows.counted_to for s in bench.sinks.saved] == [0, 1]
    assert bench.sinks.journal == ["lines", "windows", "publish", "save"] * 2


# --- refusals ------------------------------------------------------------------------------------


async def test_a_refused_message_goes_to_the_dead_letters_byte_for_byte_with_its_reason(
    bench: Bench, batch_of: MakeBatch
) -> None:
    garbage = b"\x00\xff{not json\n"
    await bench.processor.handle(
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
    await bench.processor.handle(
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
    assert from_bytes(bench.sinks.saved[-1]).windows.counted_to == 3


async def test_a_late_batch_is_stored_and_a_letter_says_that_its_windows_are_not(
    bench: Bench, batch_of: MakeBatch
) -> None:
    await bench.processor.handle([message(0, batch_of(0, end_epoch_ns=NOON_NS + 300 * NS))])
    await bench.processor.handle([message(1, batch_of(1))])
    assert [line.sequence for line in bench.sinks.lines] == [0, 1]
    assert [dict(r.headers)["meter_reason"] for r in bench.sinks.published_to(USAGE_DLQ)] == [
        b"late"
    ]


# --- windows, time and metrics -------------------------------------------------------------------


async def test_a_window_is_told_as_final_once_the_watermark_has_passed_it(
    bench: Bench, batch_of: MakeBatch
) -> None:
    await bench.processor.handle([message(0, batch_of(0))])
    assert bench.sinks.rows == []
    await bench.processor.handle([message(1, batch_of(1, end_epoch_ns=NOON_NS + 12 * NS))])
    (row,) = bench.sinks.rows
    assert (row.window_seconds, row.final, row.requests) == (10, True, 1)
    assert len(bench.sinks.published_to(COST_WINDOWS)) == 1


async def test_a_tick_tells_open_windows_once_and_then_only_when_they_have_changed(
    bench: Bench, batch_of: MakeBatch
) -> None:
    await bench.processor.handle([message(0, batch_of(0))])
    await bench.processor.tick()
    assert {(r.window_seconds, r.final) for r in bench.sinks.rows} == {(10, False), (60, False)}
    saves = len(bench.sinks.saved)
    await bench.processor.tick()
    assert len(bench.sinks.rows) == 2
    assert len(bench.sinks.saved) == saves


async def test_windows_of_a_topic_that_has_gone_quiet_are_closed_by_the_clock(
    bench: Bench, batch_of: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = NOON_NS + NS
    monkeypatch.setattr("streams.worker.processor.time.time_ns", lambda: now_ns)
    await bench.processor.handle([message(0, batch_of(0))])
    await bench.processor.tick()
    assert not any(row.final for row in bench.sinks.rows)
    now_ns = NOON_NS + 15 * NS + 1  # the window's end, the disorder and the quiet time
    await bench.processor.tick()
    assert [(r.window_seconds, r.final) for r in bench.sinks.rows[2:]] == [(10, True)]
    assert bench.metric("meter_watermark_delay_seconds") == pytest.approx(17.0)


async def test_while_messages_are_waiting_no_window_is_closed_by_the_clock(
    bench: Bench, batch_of: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restart: the topic seems quiet because nothing has been read yet."""
    await bench.processor.handle([message(0, batch_of(0))])
    monkeypatch.setattr("streams.worker.processor.time.time_ns", lambda: 2 * NOON_NS)
    bench.written_to = 2
    await bench.processor.tick()
    assert not any(row.final for row in bench.sinks.rows)
    bench.written_to = 1
    await bench.processor.tick()
    assert bench.sinks.rows[-1].final


async def test_while_kafka_does_not_say_where_the_topic_ends_no_window_is_closed_by_the_clock(
    bench: Bench, batch_of: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.processor.handle([message(0, batch_of(0))])
    monkeypatch.setattr("streams.worker.processor.time.time_ns", lambda: 2 * NOON_NS)
    bench.written_to = None
    for _ in range(2 * STALLED_TICKS):
        await bench.processor.tick()
    assert not any(row.final for row in bench.sinks.rows)
    assert bench.stretches == []


async def test_what_is_at_the_topics_end_and_does_not_come_is_read_after_a_while(
    bench: Bench, batch_of: MakeBatch
) -> None:
    """Passed over, and nothing comes behind it that would show it."""
    await bench.processor.handle([message(0, batch_of(0))])
    bench.topic = {1: message(1, batch_of(1))}
    bench.written_to = 2
    later_ns = time.time_ns() + 60 * NS
    with pytest.MonkeyPatch.context() as clock:
        clock.setattr("streams.worker.processor.time.time_ns", lambda: later_ns)
        for _ in range(STALLED_TICKS - 1):
            await bench.processor.tick()
        assert bench.stretches == []
        await bench.processor.tick()
    assert bench.stretches == [(1, 2)]
    assert [line.sequence for line in bench.sinks.lines] == [0, 1]


async def test_an_end_at_which_the_topic_has_nothing_keeps_no_window_open(
    bench: Bench, batch_of: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind the marker of a transaction."""
    await bench.processor.handle([message(0, batch_of(0))])
    monkeypatch.setattr("streams.worker.processor.time.time_ns", lambda: 2 * NOON_NS)
    bench.written_to = 2
    for _ in range(STALLED_TICKS + 1):
        await bench.processor.tick()
    assert bench.sinks.rows[-1].final


async def test_a_tick_with_nothing_to_tell_touches_no_sink(bench: Bench) -> None:
    await bench.processor.tick()
    assert bench.sinks.journal == []
    assert bench.metric("meter_price_book_ok") == 1


async def test_a_tick_waits_for_its_turn_while_messages_are_handled(
    bench: Bench, batch_of: MakeBatch
) -> None:
    bench.sinks.hold = threading.Event()
    handling = asyncio.create_task(bench.processor.handle([message(0, batch_of(0))]))
    await asyncio.sleep(0.05)
    ticking = asyncio.create_task(bench.processor.tick())
    done, _ = await asyncio.wait({ticking}, timeout=0.1)
    assert not done
    bench.sinks.hold.set()
    await asyncio.gather(handling, ticking)
    assert bench.sinks.journal == ["lines", "windows", "publish", "save"] * 2


async def test_metrics_count_requests_tokens_gpu_time_and_cost(
    bench: Bench, batch_of: MakeBatch
) -> None:
    batch = batch_of(0, gpu_ns=2 * NS, requests=[{"input_tokens": 7, "output_tokens": 5}, {}])
    unpriced = batch_of(1, accelerator="a secret chip", model="big", gpu_ns=NS)
    await bench.processor.handle([message(0, batch), message(1, unpriced)])
    assert bench.metric("meter_requests_total", model="tiny", pricing_status="priced") == 2
    assert bench.metric("meter_requests_total", model="big", pricing_status="unpriced") == 1
    assert bench.metric("meter_tokens_total", model="tiny", direction="input") == 107
    assert bench.metric("meter_tokens_total", model="tiny", direction="output") == 25
    assert bench.metric("meter_gpu_seconds_total", model="tiny") == 2.0
    assert bench.metric("meter_cost_usd_total", model="tiny") == pytest.approx(0.002)
    assert bench.metric("meter_cost_usd_total", model="big") is None
    assert bench.metric("meter_write_seconds_count") == 1


# --- the price book's file -----------------------------------------------------------------------


def rewrite(book: Path, content: str | bytes) -> None:
    """In one step, as an editor or a deployment does it."""
    new = book.with_suffix(".new")
    new.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(new, book)


async def test_a_price_that_changes_is_taken_by_event_time_from_then_on(
    bench: Bench, batch_of: MakeBatch
) -> None:
    await bench.processor.handle([message(0, batch_of(0, gpu_ns=NS))])
    rewrite(bench.book, entry("3.60") + entry("7.20", "2026-05-28T20:26:45Z"))
    before, at = NOON_NS + 4 * NS, NOON_NS + 5 * NS
    await bench.processor.handle(
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
    await bench.processor.handle([message(0, batch_of(0, gpu_ns=NS))])
    await bench.processor.tick()
    assert [line.cost_usd for line in bench.sinks.lines] == [Decimal("0.001")]
    assert bench.metric("meter_price_book_ok") == 0
    rewrite(bench.book, entry("7.20"))
    await bench.processor.handle([message(1, batch_of(1, gpu_ns=NS))])
    await bench.processor.tick()
    assert bench.sinks.lines[-1].cost_usd == Decimal("0.002")
    assert bench.metric("meter_price_book_ok") == 1


def test_a_book_that_is_gone_for_a_while_stays_in_use(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(entry("3.60"))
    prices = PriceBookFile(path)
    path.unlink()
    assert not prices.refresh()
    assert not prices.ok
    assert len(prices.book) == 1
    path.write_text(entry("3.60") + entry("9", accelerator="H100"))
    assert prices.refresh()
    assert prices.ok
    assert len(prices.book) == 2


def test_a_book_that_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(entry("3.60"))
    prices = PriceBookFile(path)
    held = prices.book
    assert not prices.refresh()
    assert prices.book is held


def test_a_worker_does_not_begin_without_a_readable_book(tmp_path: Path) -> None:
    with pytest.raises(InvalidPriceBook, match=r"prices\.toml"):
        PriceBookFile(tmp_path / "prices.toml")


async def test_a_flood_of_refusals_is_a_line_of_the_log_for_each_reason(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    flood = [Message(n, NOON_NS, b"{" if n % 2 else b"[]") for n in range(300)]
    await bench.processor.handle(flood)
    said = [r.getMessage() for r in caplog.records if "refused" in r.getMessage()]
    assert [line[:32] for line in said] == [
        "message at offset 0 refused: inv",
        "message at offset 1 refused: mal",
    ]
    assert all("149 more of this reason" in line for line in said)
    assert len(bench.sinks.published_to(USAGE_DLQ)) == 300
    assert bench.metric("meter_refused_messages_total", reason="malformed") == 150

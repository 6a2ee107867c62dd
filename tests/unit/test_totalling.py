"""One partition of the additions: added in order, told, saved, acknowledged; lost ones reread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from metering.additions import NO_ADDITIONS, TALLY, Additions, Mark, decode, encode
from metering.costs import WindowRow
from metering.errors import MeteringError
from metering.messages import Message
from metering.totals import Totals
from metering.totals_records import HEAD, totals_of
from metering.windows import WindowKey
from sinks.prometheus import WorkerMetrics
from streams.publisher import Record
from streams.topics import COST_WINDOWS, TOTALS, USAGE_DLQ
from streams.worker import owned as owned_module
from streams.worker.owned import Owned
from streams.worker.totalling import SLOW_EVERY, Totalling, Untold
from streams.worker.transaction import Lost

NS = 10**9
NOON_S = 1_780_000_020  # a minute begins
COHORT = ("acme", "tiny", "eu")


def mark(sequence: int, *, at_s: int = 0, partition: int = 0, partitions: int = 1) -> Mark:
    reached_ns = (NOON_S + at_s) * NS
    return Mark(partition, partitions, sequence, sequence * 10, reached_ns, reached_ns)


def requests(count: int, *, at_s: int = 0, cohort: tuple[str, str, str] = COHORT) -> Additions:
    values = [np.array([0], object) for _ in TALLY]
    values[TALLY.index("requests")][0] = count
    values[TALLY.index("cost_atto")][0] = min(count, 2**32) * 10**15
    start_s = (NOON_S + at_s) // 10 * 10
    return Additions([cohort], np.array([start_s]), np.array([0]), values)


def message(offset: int, told: Mark, additions: Additions = NO_ADDITIONS) -> Message:
    return Message(offset, 0, encode(told, additions))


class Bench:
    def __init__(self, totals: Totals | None = None, untold: Untold | None = None) -> None:
        self.rows: list[WindowRow] = []
        self.records: list[Record] = []
        self.saved: dict[bytes, bytes] = {}
        self.topic: dict[int, Message] = {}
        self.acknowledged: list[str] = []
        self.sought: list[tuple[int, int]] = []
        self.done: list[str] = []
        self.lost: list[str] = []
        self.registry = CollectorRegistry()
        self.totalling = Totalling(
            2,
            totals=Totals() if totals is None else totals,
            write_rows=self.write_rows,
            commit=self.commit,
            read_stretch=self.read_stretch,
            metrics=WorkerMetrics(self.registry),
            untold=untold,
        )

    async def write_rows(self, rows: Sequence[WindowRow]) -> None:
        self.done.append("begins to insert")
        await asyncio.sleep(0.01)
        self.rows += rows
        self.done.append("has inserted")

    async def commit(self, records: Sequence[Record]) -> None:
        """``lost`` says of the next ones what becomes of them."""
        self.done.append("begins a transaction")
        lost = self.lost.pop() if self.lost else ""
        if lost == "void":
            raise Lost("fenced")
        self.records += records
        for record in records:
            if record.topic != TOTALS:
                continue
            assert record.partition == 2
            if record.value is None:
                del self.saved[record.key]
            else:
                self.saved[record.key] = record.value
        if lost == "unknown":
            raise Lost("committed, but the answer is lost")

    async def close(self) -> None:
        return

    async def read_stretch(self, first: int, end: int) -> tuple[list[Message], int]:
        self.sought.append((first, end))
        return [self.topic[n] for n in range(first, end) if n in self.topic], end

    async def give(self, *messages: Message, name: str = "") -> None:
        await self.totalling.handle(messages, lambda: self.acknowledged.append(name))

    def told(self) -> list[tuple[int, int, bool]]:
        return [(row.window_seconds, row.requests, row.final) for row in self.rows]


async def test_what_is_added_is_told_saved_and_then_acknowledged() -> None:
    bench = Bench()
    await bench.give(message(4, mark(1), requests(3)), message(5, mark(2), requests(4)), name="a")
    assert bench.acknowledged == []
    await bench.totalling.tell()
    assert bench.told() == [(10, 7, False), (60, 7, False)]
    assert {row.counted_to for row in bench.rows} == {5}
    assert {row.cost_usd for row in bench.rows} == {Decimal("0.007")}
    assert bench.acknowledged == ["a"]
    assert [r.topic for r in bench.records].count(COST_WINDOWS) == 2
    again = totals_of(bench.saved)
    assert again.counted_to == 5
    assert again.windows[WindowKey(NOON_S, 10)].sums([0])[0][TALLY.index("requests")] == 7
    await bench.totalling.tell()
    assert len(bench.rows) == 2, "nothing has changed"


async def test_longer_windows_are_told_now_and_then_and_when_they_end() -> None:
    bench = Bench()
    await bench.give(message(0, mark(1), requests(1)))
    for _ in range(SLOW_EVERY):
        await bench.totalling.tell()
    assert sorted(length for length, *_ in bench.told()) == [10, 60, 3600, 86400]
    await bench.give(message(1, mark(2, at_s=3600)))
    await bench.totalling.tell()
    assert sorted(bench.told()[4:]) == [(10, 1, True), (60, 1, True), (3600, 1, True)]


async def test_a_window_is_final_when_every_partition_is_past_it() -> None:
    bench = Bench()
    first, second = (mark(1, at_s=30, partition=p, partitions=2) for p in (0, 1))
    await bench.give(message(0, first, requests(1)))
    await bench.totalling.tell()
    assert (10, 1, True) not in bench.told()
    await bench.give(message(1, second))
    await bench.totalling.tell()
    assert bench.told()[-1] == (10, 1, True)


async def test_what_was_passed_over_is_read_from_the_topic_and_added_once() -> None:
    bench = Bench()
    bench.topic = {n: message(n, mark(n + 1), requests(1)) for n in range(6)}
    await bench.give(bench.topic[0])
    await bench.give(bench.topic[4])
    await bench.give(*(bench.topic[n] for n in (2, 3, 5)))  # Faust has them after all
    await bench.totalling.tell()
    assert bench.told()[0] == (10, 6, False)
    assert bench.registry.get_sample_value("meter_reread_messages_total") == 3


async def test_the_first_usage_of_a_partition_that_was_always_quiet_misses_nothing() -> None:
    bench = Bench()
    await bench.give(message(0, mark(-1)), message(1, mark(-1, at_s=1)))
    await bench.give(message(3, mark(1, at_s=2), requests(1)))
    assert bench.sought == []
    await bench.give(message(9, mark(3, at_s=3), requests(1)))
    assert bench.sought == [(4, 9)]


async def test_the_marks_of_a_quiet_partition_have_no_number_and_none_is_missed() -> None:
    bench = Bench()
    await bench.give(message(0, mark(1), requests(1)), message(1, mark(-1, at_s=30)))
    await bench.give(message(2, mark(2, at_s=31), requests(1, at_s=31)))
    await bench.totalling.tell()
    assert (10, 1, True) in bench.told()
    assert bench.registry.get_sample_value("meter_reread_messages_total") == 0


async def test_what_is_lost_is_not_acknowledged() -> None:
    bench = Bench()
    bench.lost = ["void"]
    await bench.give(message(0, mark(1), requests(1)), name="a")
    with pytest.raises(Lost):
        await bench.totalling.tell()
    assert bench.acknowledged == []
    assert bench.saved == {}


class Partition:
    """Of one worker that keeps it, whatever becomes of its transactions."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.untold: Untold = []
        self.owned = Owned(self.make, lambda _: True)

    async def make(self, _: int) -> Bench:
        before, self.bench = self.bench, Bench(totals_of(self.bench.saved), self.untold)
        self.bench.saved, self.bench.lost = before.saved, before.lost
        self.bench.acknowledged = before.acknowledged
        return self.bench

    async def give(self, *messages: Message, name: str) -> None:
        assert await self.owned.use(2, lambda bench: bench.give(*messages, name=name))

    async def tell(self) -> None:
        assert await self.owned.use(2, lambda bench: bench.totalling.tell())


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owned_module, "RETRY_FIRST_S", 0.001)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("lost", [["void"], ["void", "void"], ["unknown"], ["unknown", "void"]])
async def test_what_a_lost_transaction_had_is_told_and_acknowledged_by_the_next_owner(
    lost: list[str],
) -> None:
    partition = Partition()
    await partition.give(message(0, mark(1), requests(1)), name="a")
    await partition.tell()
    assert partition.bench.acknowledged == ["a"]
    await partition.give(message(1, mark(2), requests(2)), name="b")
    await partition.give(message(2, mark(3), requests(4)), name="c")
    partition.bench.lost += lost
    await partition.tell()
    assert partition.bench.acknowledged == ["a", "b", "c"]
    assert partition.untold == [], "nothing is kept of what is acknowledged"
    await partition.give(message(3, mark(4), requests(8)), name="d")
    await partition.tell()
    assert partition.bench.acknowledged == ["a", "b", "c", "d"]
    assert partition.bench.told()[-2:] == [(10, 15, False), (60, 15, False)]
    assert totals_of(partition.bench.saved).counted_to == 3


@pytest.mark.usefixtures("_quick")
async def test_what_comes_next_is_added_behind_what_a_lost_owner_had() -> None:
    partition = Partition()
    await partition.give(message(0, mark(1), requests(1)), name="a")
    lost = [Lost("fenced")]

    async def lose_once(bench: Bench) -> None:
        if lost:
            raise lost.pop()
        await bench.give(message(1, mark(2), requests(2)), name="b")

    await partition.owned.use(2, lose_once)
    await partition.tell()
    assert partition.bench.acknowledged == ["a", "b"]
    assert partition.bench.told()[0] == (10, 3, False)


async def test_rows_are_inserted_before_a_transaction_begins() -> None:
    """Readers of the topic stand still before an open one, and ClickHouse may be away for long."""
    bench = Bench()
    await bench.give(message(0, mark(1), requests(1)))
    await bench.totalling.tell()
    assert bench.done == ["begins to insert", "has inserted", "begins a transaction"]


async def test_a_new_owner_goes_on_where_the_totals_end() -> None:
    bench = Bench()
    messages = [message(n, mark(n + 1), requests(1, at_s=n)) for n in range(4)]
    await bench.give(*messages[:2])
    await bench.totalling.tell()
    after = Bench(totals_of(bench.saved))
    await after.give(*messages)
    await after.totalling.tell()
    assert after.told()[0] == (10, 4, False)


async def test_windows_that_nothing_can_change_are_forgotten_and_deleted() -> None:
    bench = Bench()
    for n in range(100):
        at_s = n * 10
        await bench.give(message(n, mark(n + 1, at_s=at_s), requests(1, at_s=at_s)))
        await bench.totalling.tell()
    kept = [key for key in bench.saved if key.startswith(b"10/")]
    assert len(kept) <= 120 // 10 + 3
    assert HEAD in bench.saved
    totals = totals_of(bench.saved)
    assert sum(key.seconds == 10 for key in totals.windows) == len(kept)


async def test_what_comes_for_windows_that_are_gone_has_a_letter() -> None:
    """From a partition that was silent for hours, while others went on."""
    bench = Bench()
    await bench.give(message(0, mark(1, at_s=9000, partitions=2)))
    await bench.give(message(1, mark(1, partition=1, partitions=2), requests(5)))
    await bench.totalling.tell()
    (letter,) = [r for r in bench.records if r.topic == USAGE_DLQ]
    assert dict(letter.headers)["meter_reason"] == b"late"
    assert b"up to 3600 s" in dict(letter.headers)["meter_detail"]
    for _ in range(SLOW_EVERY):
        await bench.totalling.tell()
    assert bench.told() == [(86400, 5, False)]


async def test_what_is_too_large_for_a_window_has_a_letter_and_the_others_go_on() -> None:
    """A day may be full where an hour is not."""
    bench = Bench()
    most = 2**64 - 1
    day = requests(most, at_s=-7200, cohort=("acme", "tiny", "eu"))
    await bench.give(message(0, mark(1, at_s=-7200), day))
    await bench.totalling.tell()
    await bench.give(message(1, mark(2), requests(5)))
    await bench.give(message(2, mark(3), requests(7, cohort=("other", "tiny", "eu"))))
    await bench.totalling.tell()
    (letter,) = [r for r in bench.records if r.topic == USAGE_DLQ]
    headers = dict(letter.headers)
    assert headers["meter_reason"] == b"too-large"
    assert b"their windows of 86400 s" in headers["meter_detail"]
    assert b"tenant='acme'" in headers["meter_detail"]
    assert headers["ce_id"] == b"additions/2@1/86400"
    assert (
        bench.registry.get_sample_value("meter_refused_messages_total", {"reason": "too-large"})
        == 1
    )
    assert {(row.tenant, row.requests) for row in bench.rows if row.window_seconds == 10} == {
        ("acme", most), ("acme", 5), ("other", 7)
    }  # fmt: skip
    _, found = decode(letter.value or b"")
    assert found.values[TALLY.index("requests")].tolist() == [5]


def test_a_state_of_another_format_or_with_a_hole_is_an_error() -> None:
    with pytest.raises(MeteringError, match="format 9"):
        totals_of({HEAD: b'{"format":9}'})
    with pytest.raises(MeteringError, match="missing"):
        totals_of({b"10/0/1": b'[1,false,17,[["a","b","c"]]]\n' + bytes(17 * 16)})


def test_a_state_from_before_a_figure_was_told_is_read() -> None:
    words = np.zeros((1, 16, 2), "<i8")
    words[0, 0, 0] = 7
    value = b'[1,false,16,[["a","b","c"]]]\n' + words.tobytes()
    totals = totals_of({b"10/1780000020/0": value})
    (sums,) = totals.windows[WindowKey(NOON_S, 10)].sums([0])
    assert sums[TALLY.index("requests")] == 7
    assert sums[TALLY.index("refused_requests")] == 0
    assert sums[TALLY.index("priced_requests")] == 7
    assert len(sums) == len(TALLY)


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"hello", b"{}", b"[]", b"\xff\xfe", b"null", b'{"format":2}', b'{"format":"x"}'),
        encode(mark(2), requests(3)).replace(b'"level":[0]', b'"level":[]'),
        encode(mark(2), requests(3)).replace(b'"level":[0]', b'"level":[9223372036854775808]'),
        encode(mark(2), requests(3)).replace(b'"partition":0', b'"partition":99999999999999999999'),
    ],
)
async def test_what_is_no_addition_gets_a_letter_and_stops_nobody(value: bytes) -> None:
    bench = Bench()
    bad = Message(1, 0, value)
    await bench.totalling.handle([message(0, mark(1), requests(1)), bad], lambda: None)
    await bench.totalling.handle([message(2, mark(2), requests(4))], lambda: None)
    await bench.totalling.tell()
    assert {row.requests for row in bench.rows} == {5}
    (letter,) = [r for r in bench.records if r.topic == USAGE_DLQ]
    assert letter.value == value
    headers = dict(letter.headers)
    assert headers["meter_reason"] == b"malformed"
    assert headers["ce_id"] == b"meter.additions.v1/2@1"


@pytest.mark.parametrize("told", [b'{"format":3}', b'{"format":3,"more":[]}'])
async def test_additions_of_a_later_version_stop_the_worker_and_are_not_lost(told: bytes) -> None:
    with pytest.raises(MeteringError, match="does not read"):
        await Bench().totalling.handle([Message(0, 0, told)], lambda: None)

"""The whole stream without its I/O: replays, duplicates, disorder and crashes change no total.

Sources send to partitions; each partition is priced by itself into lines and additions; the
additions of a cohort go one way and are added up there. Whoever prices and whoever adds up may die
between any two steps, before or after what they did became durable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from metering.additions import NO_ADDITIONS, decode, encode, split
from metering.cloudevents import USAGE_BATCH_TYPE, encode_headers
from metering.costs import CostLine, WindowRow
from metering.ledger import Ledger, Policy, mark_of, take
from metering.ledger_records import changed_records, ledger_of
from metering.messages import Message
from metering.prices import PriceBook, parse_price_book
from metering.totals import Keeping, Totals, add, expected, forget, tell
from metering.totals_records import changed_records as totals_records
from metering.totals_records import totals_of
from metering.usage import UsageBatch
from metering.windows import WINDOW_SECONDS

NS = 10**9
NOON_NS = 1_780_000_000 * NS
POLICY = Policy()
KEEPING = Keeping()
BOOK: PriceBook = parse_price_book(
    '[[gpu_hour]]\nid = "p"\naccelerator = "cpu"\nregion = "*"\n'
    'usd_per_gpu_hour = "1.7"\neffective_from = 2020-01-01T00:00:00Z\n',
    "book",
)
MakeBatch = Callable[..., UsageBatch]
Arrival = tuple[int, int, int, str, str]
"""(partition, sequence, ms after noon, tenant, region)"""


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[int, list[Arrival]]:
    partitions = draw(st.integers(1, 3))
    sent = [
        (
            n % partitions,
            n,
            draw(st.integers(0, 90_000)),
            draw(st.sampled_from(["acme", "globex", "initech"])),
            draw(st.sampled_from(["eu", "us"])),
        )
        for n in range(draw(st.integers(1, 25)))
    ]
    again = draw(st.lists(st.sampled_from(sent), max_size=10))
    return partitions, draw(st.permutations(sent + again))


def keep(saved: dict[bytes, bytes], changed: Iterable[tuple[bytes, bytes | None]]) -> None:
    """As a compacted topic does."""
    for key, value in changed:
        if value is None:
            saved.pop(key, None)
        else:
            saved[key] = value


@dataclass
class Priced:
    """One partition: its topic, and what Kafka and ClickHouse have of it."""

    number: int
    partitions: int
    topic: list[Message] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    saved: dict[bytes, bytes] = field(default_factory=dict)
    at: int = 0

    def step(self, data: st.DataObject, stored: list[CostLine], ways: list[list[bytes]]) -> None:
        size = data.draw(st.integers(1, len(self.topic) - self.at))
        messages = self.topic[self.at : self.at + size]
        decision = take(self.ledger, messages, BOOK, POLICY, NOON_NS)
        fate = data.draw(st.sampled_from(["go on", "die before it is sent", "die after it"]))
        stored += decision.lines  # in ClickHouse before anything is sent
        if fate != "die before it is sent":
            if decision.replayed < len(messages):
                mark = mark_of(
                    self.ledger, POLICY, partition=self.number, partitions=self.partitions
                )
                parts = split(decision.additions, len(ways))
                for way, part in zip(ways, parts, strict=True):
                    way.append(encode(mark, part))
            keep(self.saved, changed_records(self.ledger))
            self.at += size
        if fate != "go on":
            self.ledger = ledger_of(self.saved)
            # Offsets are committed later than ledgers are saved: some come again.
            self.at = data.draw(st.integers(0, self.at))


@dataclass
class Added:
    """One way: its totals, and what Kafka has of them."""

    totals: Totals = field(default_factory=Totals)
    saved: dict[bytes, bytes] = field(default_factory=dict)
    at: int = 0

    def step(self, data: st.DataObject, topic: Sequence[bytes], rows: list[WindowRow]) -> None:
        size = data.draw(st.integers(0, len(topic) - self.at))
        for offset in range(self.at, self.at + size):
            mark, additions = decode(topic[offset])
            assert offset <= self.totals.counted_to or expected(self.totals, mark)
            assert not add(self.totals, offset, mark, additions, KEEPING).late.cohorts
        fate = data.draw(st.sampled_from(["go on", "die before it is saved", "die after it"]))
        rows += tell(self.totals, data.draw(st.sampled_from([(), (10, 60), WINDOW_SECONDS])))
        if fate != "die before it is saved":
            forget(self.totals, KEEPING)
            keep(self.saved, totals_records(self.totals))
            self.at += size
        if fate != "go on":
            self.totals = totals_of(self.saved)
            self.at = data.draw(st.integers(0, self.at))


@given(arrivals(), st.integers(1, 3), st.data())
def test_crashes_replays_duplicates_and_disorder_change_no_total(
    batch_of: MakeBatch, found: tuple[int, list[Arrival]], ways: int, data: st.DataObject
) -> None:
    partitions, came = found
    priced = [Priced(n, partitions) for n in range(partitions)]
    for partition, sequence, ms, tenant, region in came:
        topic = priced[partition].topic
        batch = batch_of(
            sequence,
            end_epoch_ns=NOON_NS + ms * 10**6,
            region=region,
            requests=[{"tenant": tenant}, {}],
        )
        topic.append(message(batch, len(topic)))
    stored: list[CostLine] = []
    topics: list[list[bytes]] = [[] for _ in range(ways)]
    added = [Added() for _ in range(ways)]
    rows: list[WindowRow] = []
    while todo := [p for p in priced if p.at < len(p.topic)]:
        data.draw(st.sampled_from(todo)).step(data, stored, topics)
        way = data.draw(st.integers(0, ways - 1))
        added[way].step(data, topics[way], rows)
    for partition in range(partitions):  # and then it is quiet
        mark = mark_of(
            priced[partition].ledger,
            POLICY,
            partition=partition,
            partitions=partitions,
            idle_since_ns=NOON_NS + 3 * 86_400 * NS,
        )
        for topic_ in topics:
            topic_.append(encode(mark, NO_ADDITIONS))
    for way, topic_ in zip(added, topics, strict=True):
        for offset in range(way.at, len(topic_)):
            add(way.totals, offset, *decode(topic_[offset]), KEEPING)
        rows += tell(way.totals, WINDOW_SECONDS)

    lines = {(line.source, line.sequence, line.position): line for line in stored}
    assert all(lines[x.source, x.sequence, x.position] == x for x in stored), "the same write"
    assert len(lines) == 2 * len({sequence for _, sequence, *_ in came})
    kept = check_windows_equal_the_lines(list(lines.values()), rows)
    assert all(row.final for row in kept)


def message(batch: UsageBatch, offset: int) -> Message:
    headers = encode_headers(USAGE_BATCH_TYPE, batch.source, str(batch.sequence), None)
    return Message(offset, batch.end_epoch_ns, batch.model_dump_json().encode(), tuple(headers))


def check_windows_equal_the_lines(
    lines: Sequence[CostLine], rows: Sequence[WindowRow]
) -> list[WindowRow]:
    """Rows as ClickHouse keeps them: the one with the highest version replaces the others; two of
    one version are equal."""
    kept: dict[tuple[object, ...], WindowRow] = {}
    for row in rows:
        key = (row.window_seconds, row.window_start_ms, row.tenant, row.model, row.region)
        before = kept.get(key)
        if before is None or (row.counted_to, row.final) > (before.counted_to, before.final):
            kept[key] = row
        elif (row.counted_to, row.final) == (before.counted_to, before.final):
            assert row == before
    requests: Counter[tuple[object, ...]] = Counter()
    cost: Counter[tuple[object, ...]] = Counter()
    for line in lines:
        for seconds in WINDOW_SECONDS:
            start_ms = line.time_ns // (seconds * NS) * seconds * 1000
            key = (seconds, start_ms, line.tenant, line.model, line.region)
            requests[key] += 1
            assert line.cost_usd is not None
            cost[key] += line.cost_usd  # type: ignore[assignment]
    assert {key: row.requests for key, row in kept.items()} == dict(requests)
    assert {key: row.cost_usd for key, row in kept.items()} == dict(cost)
    return list(kept.values())

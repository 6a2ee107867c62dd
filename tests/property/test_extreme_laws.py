"""However large what is acceptable may be: no step raises, no sum wraps round, nothing is lost.

Usage at its bounds goes through every step up to what Kafka and ClickHouse get, and is held to
sums of Python's own integers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering import ledger_records
from metering.additions import TALLY, Additions, Mark, decode, encode
from metering.columns import whole
from metering.costs import CostLine, WindowRow
from metering.errors import UnreadableUsage
from metering.frame import sieve
from metering.ledger import Ledger, Policy, mark_of, take
from metering.lines import CostLines
from metering.messages import Message
from metering.money import ATTO_PER_USD, atto_usd, usd
from metering.prices import parse_price_book
from metering.pricing import price_batch
from metering.scanning import frame_in
from metering.tenant_costs import lines_in, tenant_values
from metering.totals import Keeping, Totals, add, tell
from metering.totals_records import changed_records, totals_of
from metering.usage import SUMMED, UsageBatch, parse_usage
from metering.usage_columns import document_of, encode_columns, usage_of_columns
from metering.usage_struct import event_in, event_of
from metering.window_rows import values_of
from metering.window_sums import MOST_COUNT, MOST_USD
from metering.windows import WINDOW_SECONDS, Tally, window_key
from sinks.clickhouse.arrow import table_of
from sinks.clickhouse.window_table import window_table

MakeBatch = Callable[..., UsageBatch]
NS = 10**9
NOON_NS = 1_780_000_000 * NS
LARGEST = 2**53 - 1
BOOK = parse_price_book(
    '[[gpu_hour]]\nid = "dearest"\naccelerator = "dearest"\nregion = "*"\n'
    'usd_per_gpu_hour = "999999.999999999"\neffective_from = 2020-01-01T00:00:00Z\n'
    '[[gpu_hour]]\nid = "cheapest"\naccelerator = "cheapest"\nregion = "*"\n'
    'usd_per_gpu_hour = "0.000000001"\neffective_from = 2020-01-01T00:00:00Z\n'
    '[[gpu_hour]]\nid = "free"\naccelerator = "free"\nregion = "*"\n'
    'usd_per_gpu_hour = "0"\neffective_from = 2020-01-01T00:00:00Z\n',
    "book",
)
ACCELERATORS = ["dearest", "cheapest", "free", "without a price"]
extremes = st.sampled_from([0, 1, 2, LARGEST - 1, LARGEST])
Sums = Counter[tuple[int, int, tuple[str, str, str], str]]
"""By window length, start, cohort and field."""


@st.composite
def extreme_batches(draw: st.DrawFn, make: MakeBatch) -> list[UsageBatch]:
    return [_batch(draw, make, n) for n in range(draw(st.integers(1, 4)))]


def _batch(draw: st.DrawFn, make: MakeBatch, sequence: int) -> UsageBatch:
    executed = draw(st.booleans()) or draw(st.booleans())
    count = draw(st.integers(1, 3))
    spent = dict.fromkeys(("input_tokens", "output_tokens"), 0)
    requests = []
    for _ in range(count):
        request: dict[str, Any] = {"tenant": draw(st.sampled_from("ab"))}
        for name in spent:
            request[name] = min(draw(extremes), LARGEST - spent[name])
            spent[name] += request[name]
        request["cached_input_tokens"] = request["input_tokens"]
        request["reasoning_tokens"] = request["output_tokens"]
        request["queue_ns"] = draw(extremes | st.none())
        request["rows"] = 1 if draw(st.booleans()) else (2**32 - 1) // count
        request["status"] = draw(st.sampled_from(["ok", "failed"])) if executed else "cache_hit"
        requests.append(request)
    return make(
        sequence,
        gpu_ns=draw(extremes) if executed else 0,
        executed=executed,
        requests=requests,
        speedup=draw(st.sampled_from([1, 2**32 - 1])),
        accelerator=draw(st.sampled_from(ACCELERATORS)),
        end_epoch_ns=NOON_NS + draw(st.sampled_from([0, 9 * NS, 70 * NS])),
    )


@settings(deadline=None)  # what comes first loads much
@given(data=st.data(), times=st.lists(st.sampled_from([1, 2, 700, 3_000]), max_size=4))
def test_what_is_told_and_what_is_refused_are_together_what_was_used(
    batch_of: MakeBatch, data: st.DataObject, times: list[int]
) -> None:
    """``times`` is how often each take comes, in as many messages of one addition."""
    totals, refused, used = Totals(), Counter(), Counter()
    for offset, factor in enumerate([1, *times]):
        batches = data.draw(extreme_batches(batch_of))
        lines, additions = taken(batches)
        assert_written(lines)
        used.update({key: n * factor for key, n in reference(lines).items()})
        values = [whole([v * factor for v in values.tolist()]) for values in additions.values]
        sent = encode(
            Mark(0, 1, offset + 1, offset, 0, 0),
            Additions(additions.cohorts, additions.start_s, additions.level, values),
        )
        not_added = add(totals, offset, *decode(sent), Keeping())
        for seconds, parts in not_added.too_large:
            refused.update(of_additions(parts, seconds))
    totals = totals_of({k: v for k, v in changed_records(totals) if v is not None})
    for window in totals.windows.values():
        window.close()
    rows = tell(totals, WINDOW_SECONDS)
    told = assert_told(list(rows), [json.loads(v) for v in values_of(rows)])
    assert told + refused == used
    assert all(within(name, told[*key, name]) for *key, name in used)
    for key in {key[:3] for key in used}:
        if all(within(name, used[*key, name]) for name in TALLY):
            assert not any(refused[*key, name] for name in TALLY), "it would have fitted"
    table = window_table(rows).to_pylist()
    for row, found in zip(rows, table, strict=True):
        assert {name: found[name] for name in found if name in WindowRow.model_fields} == {
            name: getattr(row, name) for name in found if name in WindowRow.model_fields
        }


def taken(batches: Sequence[UsageBatch]) -> tuple[list[CostLine], Additions]:
    messages = [
        Message(n, batch.end_epoch_ns, encode_columns(batch)) for n, batch in enumerate(batches)
    ]
    decision = take(Ledger(), messages, BOOK, Policy(), NOON_NS)
    assert decision.refusals == []
    expected = [line for batch in batches for line in price_batch(batch, BOOK)]
    assert list(decision.lines) == expected
    return expected, decision.additions


def assert_written(lines: Sequence[CostLine]) -> None:
    """To the topic and to ClickHouse, as they are."""
    columns = CostLines.of(lines)
    sent = [line for _, value in tenant_values(columns) for line in lines_in(value)]
    assert sorted(sent, key=identity) == sorted(lines, key=identity)
    for line, found in zip(lines, table_of(columns).to_pylist(), strict=True):
        assert {name: found[name] for name in ("cost_usd", "input_cost_usd", "gpu_ns")} == {
            name: getattr(line, name) for name in ("cost_usd", "input_cost_usd", "gpu_ns")
        }


def identity(line: CostLine) -> tuple[int, int]:
    return line.sequence, line.position


def reference(lines: Sequence[CostLine]) -> Sums:
    """The plain rule, line by line."""
    tallies: dict[Any, Tally] = {}
    for line in lines:
        for seconds in WINDOW_SECONDS:
            start_s = window_key(line.time_ns, seconds).start_s
            key = (seconds, start_s, (line.tenant, line.model, line.region))
            tallies.setdefault(key, Tally()).add(line)
    return Counter({(*key, n): getattr(tally, n) for key, tally in tallies.items() for n in TALLY})


def of_additions(parts: Additions, seconds: int) -> Sums:
    sums: Sums = Counter()
    for n, cohort in enumerate(parts.cohorts):
        start_s = int(parts.start_s[n]) // seconds * seconds
        for name, values in zip(TALLY, parts.values, strict=True):
            sums[seconds, start_s, cohort, name] += int(values[n])
    return sums


def assert_told(rows: Sequence[WindowRow], documents: Sequence[dict[str, Any]]) -> Sums:
    """Sums of the rows, which are on the topic as they are."""
    sums: Sums = Counter()
    for row, document in zip(rows, documents, strict=True):
        assert WindowRow.model_validate(document) == row
        for name in ("usd_per_million_input_tokens", "usd_per_million_output_tokens"):
            expected = getattr(row, name)
            assert document[name] == (None if expected is None else f"{expected:f}")
        for name in TALLY:
            value = getattr(row, name.replace("_atto", "_usd"))
            cohort = (row.tenant, row.model, row.region)
            key = (row.window_seconds, row.window_start_ms // 1000, cohort, name)
            sums[key] += atto_usd(value) if name.endswith("_atto") else value
    return sums


def within(name: str, value: int) -> bool:
    return value < MOST_USD * ATTO_PER_USD if name.endswith("_atto") else value <= MOST_COUNT


def counted(messages: Sequence[Message]) -> tuple[Totals, list[tuple[int, Additions]]]:
    """All in one take."""
    decision = take(Ledger(), messages, BOOK, Policy(), NOON_NS)
    assert decision.refusals == []
    totals, mark = Totals(), Mark(0, 1, 1, 0, 0, 0)
    sent = encode(mark, decision.additions)
    return totals, list(add(totals, 0, *decode(sent), Keeping()).too_large)


def test_four_dear_batches_cost_what_they_cost(batch_of: MakeBatch) -> None:
    batches = [batch_of(n, gpu_ns=LARGEST, accelerator="dearest") for n in range(4)]
    messages = [Message(n, NOON_NS, encode_columns(b)) for n, b in enumerate(batches)]
    totals, refused = counted(messages)
    assert refused == []
    cost = usd(
        sum(atto_usd(x.cost_usd or Decimal(0)) for b in batches for x in price_batch(b, BOOK))
    )
    rows = tell(totals, (10,))
    assert [row.cost_usd for row in rows] == [cost]
    assert json.loads(next(iter(values_of(rows))))["cost_usd"] == f"{cost:f}"
    assert window_table(rows)["cost_usd"].to_pylist() == [cost]
    assert cost > 10**10


@pytest.mark.parametrize(("count", "fits"), [(2048, True), (2049, False)])
def test_more_tokens_than_a_column_holds_are_refused_and_the_rest_is_told(
    batch_of: MakeBatch, count: int, fits: bool
) -> None:
    requests = [{"input_tokens": LARGEST}]
    batches = [batch_of(n, requests=requests) for n in range(count)]
    other = batch_of(count, requests=[{"tenant": "other"}])
    messages = [Message(n, NOON_NS, encode_columns(b)) for n, b in enumerate([*batches, other])]
    totals, refused = counted(messages)
    assert [seconds for seconds, _ in refused] == ([] if fits else list(WINDOW_SECONDS))
    for window in totals.windows.values():
        window.close()
    rows = tell(totals, (10,))
    told = {row.tenant: row.input_tokens for row in rows if row.window_seconds == 10}
    assert told == ({"acme": count * LARGEST} if fits else {}) | {"other": 100}
    assert window_table(rows).num_rows == len(list(values_of(rows))) == len(rows)


@pytest.mark.parametrize("name", SUMMED)
@pytest.mark.parametrize(("first", "is_right"), [(LARGEST - 1, True), (LARGEST, False)])
@pytest.mark.parametrize("others", [1, 4_000])
def test_a_sum_over_a_batch_has_the_bound_of_its_parts_for_every_reader(
    batch_of: MakeBatch, name: str, first: int, is_right: bool, others: int
) -> None:
    """4,000 of the largest leave 64 bits."""
    sound = batch_of(requests=[{}] * (others + 1), gpu_ns=0)
    values = [LARGEST] * others + [LARGEST] if others > 1 else [first, 1]
    is_right = is_right and others == 1
    document = document_of(sound)
    document["requests"] |= {"input_tokens": 0, "output_tokens": 0, name: values}
    value = json.dumps(document, separators=(",", ":")).encode()
    objects = json.loads(sound.model_dump_json())
    for request, own in zip(objects["requests"], values, strict=True):
        request |= {"input_tokens": 0, "output_tokens": 0, name: own}
    for read in (
        lambda: usage_of_columns(value),
        lambda: parse_usage(json.dumps(objects).encode()),
    ):
        if is_right:
            assert sum(getattr(r, name) for r in read().requests) == LARGEST
        else:
            with pytest.raises(UnreadableUsage, match=f"{name} of its requests sum to"):
                read()
    assert sieve([event_in(value)])[0] == sieve([event_of(document)])[0] == [is_right]
    assert (frame_in([value]) is not None) == is_right
    decision = take(Ledger(), [Message(0, NOON_NS, value)], BOOK, Policy(), NOON_NS)
    assert (decision.batches, len(decision.refusals)) == ((1, 0) if is_right else (0, 1))


@settings(deadline=None)
@given(
    data=st.data(),
    times=st.lists(
        st.sampled_from([0, 1, NS, 86_400 * NS - 1, NOON_NS, 2**63 - 1 - NS, 2**63 - 1]),
        min_size=1,
        max_size=5,
    ),
)
def test_any_moment_has_its_windows(
    batch_of: MakeBatch, data: st.DataObject, times: list[int]
) -> None:
    """From the first to the last nanosecond, and by any stamps of the broker."""
    messages, lines = [], []
    ledger, totals, late = Ledger(), Totals(), 0
    saved: dict[bytes, bytes] = {}
    for n, end_ns in enumerate(times):
        batch = batch_of(n, source=f"s{n}", end_epoch_ns=end_ns)
        stamp_ns = data.draw(st.sampled_from([0, end_ns, 2**63 - 1]))
        messages.append(Message(n, max(stamp_ns, end_ns), encode_columns(batch)))
        lines += price_batch(batch, BOOK)
    for offset, message in enumerate(messages):
        is_first = ledger.watermark_ns == 0
        decision = take(ledger, [message], BOOK, Policy(), NOON_NS)
        assert not (is_first and decision.refusals)
        mark = mark_of(ledger, Policy(), partition=0, partitions=1)
        late += sum(refusal.reason == "late" for refusal in decision.refusals)
        assert decision.batches == 1
        add(totals, offset, *decode(encode(mark, decision.additions)), Keeping())
        for key, value in ledger_records.changed_records(ledger):
            if value is None:
                saved.pop(key, None)
            else:
                saved[key] = value
        assert ledger_records.ledger_of(saved) == ledger
    rows = tell(totals, WINDOW_SECONDS)
    assert_written(lines)
    for row, value, found in zip(
        rows, values_of(rows), window_table(rows).to_pylist() if rows else [], strict=True
    ):
        assert WindowRow.model_validate_json(value) == row
        assert found["window_start"].timestamp() * 1000 == row.window_start_ms
    if not late:
        assert sum(row.requests for row in rows if row.window_seconds == 10) == len(times)

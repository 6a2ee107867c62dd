"""CloudEvents 1.0 in Kafka's binary mode, and what the publisher makes of the project's events."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.cloudevents import (
    USAGE_BATCH_TYPE,
    check_headers,
    encode_headers,
    rfc3339,
)
from metering.costs import Anomaly, CostLine, WindowRow
from metering.errors import UnreadableUsage
from metering.ledger import Refusal
from metering.lines import CostLines
from metering.messages import Message
from metering.prices import parse_price_book
from metering.pricing import price_batch
from metering.tenant_costs import TenantCosts, lines_in
from metering.usage import UsageBatch
from metering.window_rows import WindowRows
from metering.windows import WindowState, close, count
from streams.publisher import (
    MOST_HEADERS_BYTES,
    MOST_LETTER_BYTES,
    anomaly_record,
    lines_records,
    refusal_record,
    window_records,
)

NOON_NS = 1_780_000_000 * 10**9
BOOK = parse_price_book(
    '[[gpu_hour]]\nid = "p"\naccelerator = "cpu"\nregion = "*"\nusd_per_gpu_hour = "0.07"\n'
    "effective_from = 2020-01-01T00:00:00Z\n",
    "book",
)


def test_attributes_are_headers_and_the_data_are_json() -> None:
    assert encode_headers("a.type", "a/source", "an-id", NOON_NS + 5) == [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"a.type"),
        ("ce_source", b"a/source"),
        ("ce_id", b"an-id"),
        ("ce_time", b"2026-05-28T20:26:40.000000005Z"),
        ("content-type", b"application/json"),
    ]


def test_an_event_without_a_time_has_no_such_header() -> None:
    names = [name for name, _ in encode_headers("t", "s", "i", None)]
    assert "ce_time" not in names


@given(st.integers(0, 2**63 - 1))
def test_a_time_keeps_its_nanoseconds(time_ns: int) -> None:
    shown = rfc3339(time_ns)
    moment = datetime.fromisoformat(shown[:19] + "+00:00")
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    assert seconds * 10**9 + int(shown[20:29]) == time_ns
    assert shown[-1] == "Z"


def test_what_the_encoder_makes_is_taken() -> None:
    check_headers(encode_headers(USAGE_BATCH_TYPE, "s", "1", None), USAGE_BATCH_TYPE)


def test_a_message_without_headers_is_taken_by_its_value() -> None:
    check_headers((), USAGE_BATCH_TYPE)
    check_headers((("x-trace", b"\xff"),), USAGE_BATCH_TYPE)


@pytest.mark.parametrize(
    "headers",
    [
        [("ce_type", b"inference-meter.usage.batch.v2")],
        [("ce_type", b"")],
        [("ce_type", b"\xff" * 10_000)],
        [("ce_type", USAGE_BATCH_TYPE.encode()), ("ce_specversion", b"0.3")],
    ],
)
def test_a_message_that_calls_itself_something_else_is_refused(
    headers: list[tuple[str, bytes]],
) -> None:
    with pytest.raises(UnreadableUsage) as error:
        check_headers(headers, USAGE_BATCH_TYPE)
    assert error.value.reason == "wrong-type"
    assert len(str(error.value)) < 1_000


def test_priced_lines_are_keyed_by_their_tenant_and_read_back_exactly(
    batch_of: Callable[..., UsageBatch],
) -> None:
    batch = batch_of(7, gpu_ns=10**9 + 1, requests=[{"tenant": "größer"}, {}, {}])
    lines = price_batch(batch, BOOK)
    records = list(lines_records(CostLines.of(lines), 3, (5, 6)))
    assert [r.key for r in records] == ["größer".encode(), b"acme"]
    assert [dict(r.headers)["ce_id"] for r in records] == [b"3@5-6/0", b"3@5-6/1"]
    assert [line for r in records for line in lines_in(r.value)] == lines
    assert [TenantCosts.model_validate_json(r.value).lines for r in records] == [1, 2]


def test_an_unpriced_line_says_null_and_not_0(batch_of: Callable[..., UsageBatch]) -> None:
    lines = price_batch(batch_of(0, accelerator="unheard of"), BOOK)
    (record,) = lines_records(CostLines.of(lines), 0, (0, 0))
    assert b'"cost_usd":null' in record.value
    assert [line.cost_usd for line in lines_in(record.value)] == [None]


def test_each_telling_of_a_window_has_its_own_identity_and_all_of_them_one_key(
    batch_of: Callable[..., UsageBatch],
) -> None:
    state = WindowState()
    told: list[WindowRow] = []
    for sequence in range(3):
        lines = price_batch(batch_of(sequence), BOOK)
        count(state, lines, sequence, retention_ns=10**12)
        closing_ns = 0 if sequence == 0 else NOON_NS + 10**10
        told += [r for r in close(state, closing_ns, provisional=True) if r.window_seconds == 10]
    records = list(window_records(WindowRows.of(told)))
    assert [row.final for row in told] == [False, True, True]
    assert len({r.key for r in records}) == 1
    assert len({dict(r.headers)["ce_id"] for r in records}) == 3
    assert {dict(r.headers)["ce_time"] for r in records} == {rfc3339(NOON_NS + 10**10).encode()}
    assert [WindowRow.model_validate_json(r.value) for r in records] == told


def test_the_same_offset_told_open_and_then_final_are_two_events(
    batch_of: Callable[..., UsageBatch],
) -> None:
    state = WindowState()
    count(state, price_batch(batch_of(0), BOOK), 0, retention_ns=10**12)
    (opened, *_) = close(state, 0, provisional=True)
    (closed, *_) = [
        row
        for row in close(state, NOON_NS + 10**14, provisional=True)
        if row.window_seconds == opened.window_seconds
    ]
    assert opened.counted_to == closed.counted_to
    identities = [
        dict(record.headers)["ce_id"] for record in window_records(WindowRows.of([opened, closed]))
    ]
    assert identities[0] != identities[1]


def test_an_anomaly_is_known_by_its_id() -> None:
    anomaly = Anomaly(
        anomaly_id="abc",
        window_start_ms=NOON_NS // 10**6,
        window_seconds=10,
        tenant="acme",
        model="tiny",
        score=1.5,
        score_unit="standard deviations",
        threshold=1.0,
        expected_usd=Decimal("0.000000000000000001"),
        observed_usd=Decimal("12345678901234567890.123456789012345678"),
        usd_per_hour=Decimal("-3"),
        causes=(),
    )
    record = anomaly_record(anomaly)
    assert dict(record.headers)["ce_id"] == b"abc"
    assert Anomaly.model_validate_json(record.value) == anomaly


def test_a_refused_message_keeps_its_bytes_and_its_headers_under_other_names() -> None:
    headers = (("ce_id", b"1"), ("ce_type", b"\xff"), ("meter_reason", b"a lie"))
    message = Message(42, NOON_NS, b"\x00\x01", headers)
    record = refusal_record(Refusal(message, "malformed", "half a surrogate: \ud800"), 3)
    given = dict(record.headers)
    assert record.value == b"\x00\x01"
    assert (given["ce_id"], given["meter_reason"]) == (b"3@42", b"malformed")
    assert given["original_ce_type"] == b"\xff"
    assert given["original_meter_reason"] == b"a lie"
    assert given["meter_detail"].startswith(b"half a surrogate")


def test_tenants_lines_come_in_three_kinds_of_columns_and_read_back(
    batch_of: Callable[..., UsageBatch],
) -> None:
    batches = [
        batch_of(n, model=f"m-{n % 3}", requests=[{"tenant": t} for t in ("a", "b", "a")])
        for n in range(700)
    ]
    lines = [line for batch in batches for line in price_batch(batch, BOOK)]
    records = list(lines_records(CostLines.of(lines), 0, (0, 699)))
    documents = [json.loads(r.value) for r in records]
    assert [(d["tenant"], d["lines"]) for d in documents] == [
        ("a", 500), ("a", 500), ("a", 400), ("b", 500), ("b", 200),
    ]  # fmt: skip
    first = documents[0]
    assert first["region"] == "local"
    assert first["model"]["values"] == ["m-0", "m-1", "m-2"]
    assert first["position"][:4] == [0, 2, 0, 2]
    read = [line for r in records for line in lines_in(r.value)]
    assert sorted(read, key=_identity) == sorted(lines, key=_identity)
    assert {TenantCosts.model_validate_json(r.value).tenant for r in records} == {"a", "b"}


def _identity(line: CostLine) -> tuple[int, int]:
    return line.sequence, line.position


def test_no_two_cohorts_share_a_key_in_the_compacted_topic(
    batch_of: Callable[..., UsageBatch],
) -> None:
    cohorts = [("a/b", "c"), ("a", "b/c"), ("a%2Fb", "c"), ("a", "b"), ("größer", "b")]
    regions = ("", "eu", "us", "c/", "%2F")
    state = WindowState()
    for sequence, (tenant, model) in enumerate(cohorts):
        batch = batch_of(sequence, model=model, requests=[{"tenant": tenant}])
        count(state, price_batch(batch, BOOK), sequence, retention_ns=10**12)
    rows = close(state, NOON_NS + 10**12, provisional=False)
    told = {(r.tenant, r.model): r for r in rows if r.window_seconds == 10}
    assert len(told) == len(cohorts)
    keys = {
        next(window_records(WindowRows.of([row.model_copy(update={"region": region})]))).key
        for row, region in product(told.values(), regions)
    }
    assert len(keys) == len(cohorts) * len(regions)
    start_ms = NOON_NS // 10**6
    assert f"10/{start_ms}/größer/b/eu".encode() in keys, "a plain name stays as it is"
    assert f"10/{start_ms}/größer/b/".encode() in keys, "no region leaves its place empty"


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("wrong", [("ce_type", b"another"), ("ce_specversion", b"2.0")])
def test_an_attribute_that_is_there_twice_must_be_right_both_times(
    at: int, wrong: tuple[str, bytes]
) -> None:
    headers = encode_headers(USAGE_BATCH_TYPE, "s", "1", None)
    check_headers([*headers, *headers], USAGE_BATCH_TYPE)
    with pytest.raises(UnreadableUsage):
        check_headers([*headers[:at], wrong, *headers[at:]], USAGE_BATCH_TYPE)


def test_a_message_that_was_packed_keeps_its_beginning_and_says_how_long_it_was() -> None:
    message = Message(42, NOON_NS, b"[" + b" " * MOST_LETTER_BYTES)
    record = refusal_record(Refusal(message, "malformed", ""), 0)
    assert record.value == message.value[:MOST_LETTER_BYTES]
    assert dict(record.headers)["meter_value_bytes"] == b"%d" % len(message.value)


def test_of_too_many_headers_a_letter_keeps_what_it_can_and_says_how_many_it_left_out() -> None:
    small = tuple((f"h{n}", b"v") for n in range(10))
    message = Message(42, NOON_NS, b"", (*small, ("large", b"x" * 2**20), *(("", b""),) * 10**5))
    record = refusal_record(Refusal(message, "malformed", ""), 0)
    kept = [(n, v) for n, v in record.headers if n.startswith("original_")]
    assert kept[:10] == [(f"original_{name}", value) for name, value in small]
    left_out = int(dict(record.headers)["meter_headers_left_out"])
    assert left_out + len(kept) == len(message.headers)
    assert sum(len(name) + len(value) + 4 for name, value in record.headers) < MOST_HEADERS_BYTES

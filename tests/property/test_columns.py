"""What is reckoned in columns is what is reckoned object by object."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.additions import NO_ADDITIONS, TALLY, Additions, Mark, decode, encode
from metering.apportion import largest_remainder
from metering.columns import Coded
from metering.counting import additions_of, too_late_for
from metering.division import divide, divide_in_two
from metering.errors import MeteringError, UnreadableUsage
from metering.frame import Frame, frame_of, sieve
from metering.pricing import gpu_cost_atto, price_batch
from metering.pricing_columns import gpu_costs_atto, price
from metering.totals import Keeping, Totals, add
from metering.usage import UsageBatch
from metering.usage_columns import (
    document_of,
    encode_columns,
    usage_of_columns,
    usage_of_document,
)
from metering.usage_struct import event_in, event_of
from metering.window_sums import whole_of
from metering.windows import WindowState, advance, count
from tests.property.drawn_usage import BOOK, NOT_PLAIN, NS, MakeBatch, amounts, batches, spoil

wholes = st.one_of(st.integers(0, 50), st.integers(0, 10**14), st.integers(0, 10**24))


def whole(values: Sequence[int]) -> Any:
    fits = max(values) < 2**63
    return np.array(values, np.int64 if fits else object)


@given(st.lists(st.tuples(wholes, st.lists(amounts, min_size=1, max_size=9)), min_size=1))
def test_many_wholes_are_divided_as_each_by_itself(given_: list[tuple[int, list[int]]]) -> None:
    sizes = [len(weights) for _, weights in given_]
    segment = np.repeat(np.arange(len(sizes)), sizes)
    starts = np.cumsum(sizes) - sizes
    flat = np.array([w for _, weights in given_ for w in weights], np.int64)
    parts = divide(whole([total for total, _ in given_]), flat, starts, segment)
    expected = [part for total, weights in given_ for part in largest_remainder(total, weights)]
    assert parts.tolist() == expected


@given(st.lists(st.tuples(wholes, amounts, amounts), min_size=1))
def test_two_parts_are_divided_as_by_themselves(given_: list[tuple[int, int, int]]) -> None:
    totals, first, second = zip(*given_, strict=True)
    parts = divide_in_two(whole(totals), np.array(first, np.int64), np.array(second, np.int64))
    assert parts.tolist() == [largest_remainder(t, (a, b))[0] for t, a, b in given_]


@given(st.data())
def test_events_come_through_columns_as_they_are(batch_of: MakeBatch, data: st.DataObject) -> None:
    found = data.draw(batches(batch_of))
    assert [usage_of_columns(encode_columns(batch)) for batch in found] == found


@given(st.data())
def test_lines_cost_in_columns_what_they_cost_one_by_one(
    batch_of: MakeBatch, data: st.DataObject
) -> None:
    found = data.draw(batches(batch_of))
    expected = [line for batch in found for line in price_batch(batch, BOOK)]
    lines = price(frame_in(found), BOOK)
    assert list(lines) == expected
    for column in lines.columns.values():
        if isinstance(column, Coded):
            assert len(set(column.values)) == len(column.values), "ClickHouse takes no others"


@given(st.data(), st.integers(0, 200))
def test_windows_count_in_columns_what_they_count_line_by_line(
    batch_of: MakeBatch, data: st.DataObject, retention_s: int
) -> None:
    found = data.draw(batches(batch_of))
    expected, late = WindowState(), []
    watermarks = []
    for offset, batch in enumerate(found):
        watermarks.append(expected.watermark_ns)
        lines = price_batch(batch, BOOK)
        late.append(bool(count(expected, lines, offset, retention_ns=retention_s * NS)))
        advance(expected, batch.end_epoch_ns, disorder_ns=2 * NS)
    frame = frame_in(found)
    ends_ns = frame.of_batch("end_epoch_ns")
    levels = too_late_for(ends_ns, np.array(watermarks, np.int64), retention_s * NS)
    assert (levels > 0).tolist() == late
    sent = encode(
        Mark(0, 1, 1, 0, 0, 0), additions_of(price(frame, BOOK), frame.batch, ends_ns, levels)
    )
    totals = Totals()
    assert not add(totals, 0, *decode(sent), Keeping()).late.cohorts
    found_rows = {
        (key, cohort): sums
        for key, window in totals.windows.items()
        for cohorts, words in [window.tell()]
        for cohort, sums in zip(cohorts, whole_of(words).tolist(), strict=True)
    }
    assert found_rows == {
        (key, cohort): list(astuple(tally))
        for key, window in expected.windows.items()
        for cohort, tally in window.cohorts.items()
    }


def frame_in(found: Sequence[UsageBatch]) -> Frame:
    return frame_of([event_in(encode_columns(batch)) for batch in found])


@given(st.data())
def test_what_the_columns_take_the_objects_take_and_find_the_same(
    batch_of: MakeBatch, data: st.DataObject
) -> None:
    """Not the other way round: what is written oddly, but right, is left to the objects."""
    documents = [deepcopy(document_of(b)) for b in data.draw(batches(batch_of))]
    for document in documents:
        for _ in range(data.draw(st.integers(0, 2))):
            spoil(data, document)
    events = [event_in(json.dumps(document).encode()) for document in documents]
    plain = iter(sieve([event for event in events if event is not None])[0])
    for document, event in zip(documents, events, strict=True):
        if event is not None and next(plain):
            batch = usage_of_document(document)
            assert list(price(frame_of([event]), BOOK)) == price_batch(batch, BOOK)
        else:
            try:
                batch = usage_of_document(document)
            except UnreadableUsage:
                continue
            assert sieve([event_of(document_of(batch))])[0] == [True], (
                "what is right can be made plain"
            )


@pytest.mark.parametrize("payers", [["abcdef"], [["a", "", "", "", "none"]], [[1] * 6], "abcdef"])
def test_payers_that_are_none_are_refused(batch_of: MakeBatch, payers: Any) -> None:
    document = document_of(batch_of())
    document["requests"]["payers"] = payers
    event = event_in(json.dumps(document).encode())
    assert event is None or sieve([event]) == ([False], None)
    with pytest.raises(UnreadableUsage, match=r"payers|tenant"):
        usage_of_document(document)


def test_sums_that_are_right_only_in_64_bits_are_wrong(batch_of: MakeBatch) -> None:
    document = document_of(batch_of(gpu_ns=0, requests=[{}] * 4096))
    document["requests"]["gpu_ns"] = [2**52] * 4096
    document["requests"]["input_gpu_ns"] = 0
    assert sieve([event_of(document)]) == ([False], None)


@pytest.mark.parametrize("spoiled", NOT_PLAIN)
def test_text_that_is_not_plain_json_is_left_to_the_objects(
    batch_of: MakeBatch, spoiled: Callable[[bytes], bytes]
) -> None:
    text = encode_columns(batch_of())
    assert event_in(text) is not None
    assert spoiled(text) != text
    event = event_in(spoiled(text))
    if event is not None:
        assert sieve([event]) == ([False], None)
    with pytest.raises(UnreadableUsage):
        usage_of_columns(spoiled(text))


def test_text_beyond_ascii_is_plain(batch_of: MakeBatch) -> None:
    batch = batch_of(device="Grafikkarte \u20ac \U0001f600", requests=[{"user": "\u00e4" * 256}])
    event = event_in(encode_columns(batch))
    assert list(price(frame_of([event]), BOOK)) == price_batch(batch, BOOK)


def test_a_payer_that_is_written_in_two_ways_is_one(batch_of: MakeBatch) -> None:
    text = encode_columns(batch_of(requests=[{"tenant": "a"}]))
    assert text.count(b'["a",') == 1
    frame = frame_of([event_in(text), event_in(text.replace(b'["a",', b'[ "\\u0061" ,'))])
    assert [payer[0] for payer in frame.payers] == ["a"]
    assert frame.of_request("payer").tolist() == [0, 0]


@given(st.lists(st.tuples(amounts, st.integers(0, 10**14)), min_size=1))
def test_many_costs_are_rounded_as_each_by_itself(given_: list[tuple[int, int]]) -> None:
    gpu_ns, nano_usd = zip(*given_, strict=True)
    found = gpu_costs_atto(np.array(gpu_ns, np.int64), np.array(nano_usd, np.int64))
    assert found.tolist() == [gpu_cost_atto(t, p) for t, p in given_]


def test_halves_are_rounded_to_even() -> None:
    ns = np.array([1800, 3 * 1800, 5 * 1800, 1801, 1799])
    assert gpu_costs_atto(ns, np.array([1])).tolist() == [0, 2, 2, 1, 0]


@given(st.lists(st.integers(-(2**80), 2**80), min_size=1))
def test_additions_of_any_size_come_through(values: list[int]) -> None:
    count = len(values)
    zeros = np.zeros(count, np.int64)
    sums = [np.array(values, object)] + [zeros] * (len(TALLY) - 1)
    sent = Additions([("a", "ü", "")] * count, zeros, zeros, sums)
    mark, found = decode(encode(Mark(1, 2, -1, 4, 5, 6), sent))
    assert mark == Mark(1, 2, -1, 4, 5, 6)
    assert found.cohorts == sent.cohorts
    assert [v.tolist() for v in found.values] == [v.tolist() for v in sums]


@pytest.mark.parametrize("value", [b"", b"{}", b'{"format":2}', b"\xff"])
def test_what_is_no_additions_is_refused(value: bytes) -> None:
    with pytest.raises(UnreadableUsage, match="malformed: no additions"):
        decode(value)


def test_additions_of_another_format_are_named() -> None:
    sent = encode(Mark(0, 1, 1, 0, 0, 0), NO_ADDITIONS)
    with pytest.raises(MeteringError, match="additions of format 9 with 20 fields, not 2"):
        decode(sent.replace(b'"format":2', b'"format":9'))

"""The compiled reader of usage finds what the others find, or leaves it to them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from shutil import which
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering import messages
from metering.columns import Distinct, Texts
from metering.compiled import IS_COMPILED
from metering.errors import UnreadableUsage
from metering.frame import Frame, frame_of
from metering.ledger import Ledger, Policy, lines_of, take
from metering.messages import Message
from metering.pricing import price_batch
from metering.pricing_columns import price
from metering.scanning import frame_in
from metering.usage_columns import MOST_REQUESTS, document_of, encode_columns, usage_of_columns
from metering.usage_struct import event_in
from tests.property.drawn_usage import BOOK, NOON_NS, NOT_PLAIN, NS, MakeBatch, batches, spoil

if not IS_COMPILED and which("cc") is None and which("gcc") is None:
    pytest.skip("no C compiler: the package does without the reader", allow_module_level=True)

from metering.scanner import gathered, without_frames
from tests.property.packed_texts import packed_of

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def test_there_is_one() -> None:
    assert IS_COMPILED, "there is a C compiler, so install the package anew (`make env`)"


@given(st.data())
def test_it_finds_the_columns_that_the_objects_have(
    batch_of: MakeBatch, data: st.DataObject
) -> None:
    values = [encode_columns(batch) for batch in data.draw(batches(batch_of))]
    found = frame_in(values)
    assert found is not None
    assert_same(found, frame_of([event_in(value) for value in values]))


def assert_same(found: Frame, expected: Frame) -> None:
    assert {n: c.tolist() for n, c in found.batches.items()} == {
        n: c.tolist() for n, c in expected.batches.items()
    }
    for name, column in expected.requests.items():
        if name != "payer":
            assert found.requests[name].tolist() == column.tolist(), name
    assert payers_of(found) == payers_of(expected)
    assert found.request_ids.tolist() == expected.request_ids.tolist()
    for name in ("starts", "counts", "batch"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()


def payers_of(frame: Frame) -> list[Any]:
    return [frame.payers[n] for n in frame.of_request("payer").tolist()]


@given(st.data())
def test_what_it_takes_the_objects_take_and_find_the_same(
    batch_of: MakeBatch, data: st.DataObject
) -> None:
    document = deepcopy(document_of(data.draw(batches(batch_of))[0]))
    for _ in range(data.draw(st.integers(0, 2))):
        spoil(data, document)
    value = json.dumps(document, separators=(",", ":")).encode()
    assert_honest(value)


def assert_honest(value: bytes) -> None:
    frame = frame_in([value])
    if frame is not None:
        assert list(price(frame, BOOK)) == price_batch(usage_of_columns(value), BOOK)


@pytest.mark.parametrize("spoiled", NOT_PLAIN)
def test_text_that_is_not_plain_json_is_left_to_the_others(
    batch_of: MakeBatch, spoiled: Callable[[bytes], bytes]
) -> None:
    text = encode_columns(batch_of())
    assert frame_in([text]) is not None
    assert spoiled(text) != text
    assert frame_in([spoiled(text)]) is None


@given(st.data())
def test_bytes_that_are_changed_anywhere_are_refused_or_read_as_the_objects_read_them(
    batch_of: MakeBatch, data: st.DataObject
) -> None:
    value = encode_columns(data.draw(batches(batch_of))[0])
    drawn = random.Random(data.draw(st.integers(0, 2**32)))
    for _ in range(50):
        spoiled = bytearray(value)
        for _ in range(drawn.randint(1, 3)):
            place = drawn.randrange(len(spoiled))
            match drawn.randrange(4):
                case 0:
                    spoiled[place] = drawn.randrange(256)
                case 1:
                    spoiled[place] = drawn.choice(b'0123456789",[]{}:\\-.enul')
                case 2:
                    del spoiled[place : place + drawn.randint(1, 20)]
                case 3:
                    spoiled[place:place] = spoiled[: drawn.randint(0, 40)]
            if not spoiled:
                break
        try:
            usage_of_columns(bytes(spoiled))
        except (UnreadableUsage, KeyError, TypeError):
            assert frame_in([bytes(spoiled)]) is None
        else:
            assert_honest(bytes(spoiled))


@pytest.mark.parametrize("cut", range(0, 2_000, 7))
def test_a_text_that_ends_anywhere_is_refused(batch_of: MakeBatch, cut: int) -> None:
    text = encode_columns(batch_of(requests=[{"tenant": "a"}, {"tenant": "b"}]))
    if cut < len(text):
        assert frame_in([text[:cut]]) is None


@pytest.mark.parametrize(
    "written",
    [
        json.dumps,
        lambda d: json.dumps(d, indent=1),
        lambda d: json.dumps({"columns": d["columns"], **dict(sorted(d.items()))}),
        lambda d: json.dumps(d | {"of_a_later_version": [{}]}),
        lambda d: json.dumps({n: v for n, v in d.items() if n not in ("device", "speedup")}),
        lambda d: json.dumps(d | {"requests": dict(reversed(d["requests"].items()))}),
    ],
)  # fmt: skip
def test_what_is_right_but_written_otherwise_is_read_as_well(
    batch_of: MakeBatch, written: Callable[[dict[str, Any]], str]
) -> None:
    batch = batch_of(requests=[{"tenant": "ünï", "user": '"\\'}, {"tenant": "a"}])
    plain, odd = encode_columns(batch), written(document_of(batch)).encode()
    assert plain != odd
    found = frame_in([plain, odd, plain])
    assert found is not None
    assert_same(found, frame_of([event_in(plain)] * 3))


@given(st.lists(names, min_size=1, max_size=6), st.booleans())
def test_texts_of_any_characters_come_through(
    batch_of: MakeBatch, ids: list[str], ascii_only: bool
) -> None:
    batch = batch_of(requests=[{"request_id": name, "user": name} for name in ids])
    text = json.dumps(document_of(batch), separators=(",", ":"), ensure_ascii=ascii_only).encode()
    found = frame_in([text])
    assert found is not None
    assert found.request_ids.tolist() == ids
    assert [payer[3] for payer in payers_of(found)] == ids


@pytest.mark.parametrize(
    ("more", "is_taken"),
    [
        ({"device": "x" * 256}, True),
        ({"device": "x" * 257}, False),
        ({"device": "ä" * 256}, True),
        ({"device": "ä" * 257}, False),
        ({"device": ""}, True),
        ({"model": ""}, False),
        ({"model": "\0"}, True),
        ({"sequence": 2**53 - 1}, True),
        ({"sequence": 2**53}, False),
        ({"end_epoch_ns": 2**63 - 1}, True),
        ({"end_epoch_ns": 2**63}, False),
        ({"end_epoch_ns": 10**19 - 1}, False),
        ({"end_epoch_ns": 10**30}, False),
        ({"executed": 1}, False),
        ({"timing_source": "sundial"}, False),
    ],
)  # fmt: skip
def test_the_bounds_of_a_head_are_those_of_its_types(
    batch_of: MakeBatch, more: dict[str, Any], is_taken: bool
) -> None:
    text = json.dumps(document_of(batch_of()) | more, separators=(",", ":"))
    assert (frame_in([text.encode()]) is not None) is is_taken


@pytest.mark.parametrize(("count", "is_taken"), [(MOST_REQUESTS, True), (MOST_REQUESTS + 1, False)])
def test_an_event_has_at_most_so_many_requests(
    batch_of: MakeBatch, count: int, is_taken: bool
) -> None:
    document = document_of(batch_of())
    document["batch_size"], document["gpu_ns"], document["wall_ns"] = count, 0, 0
    document["requests"] |= {"request_id": ["r"] * count, "gpu_ns": 0, "input_gpu_ns": 0}
    text = json.dumps(document, separators=(",", ":"))
    assert (frame_in([text.encode()]) is not None) is is_taken


@given(st.data())
def test_a_ledger_decides_the_same_with_it_and_without(
    batch_of: MakeBatch, data: st.DataObject
) -> None:
    """Also where some come twice, from the future, or are no usage at all."""
    drawn = [encode_columns(batch) for batch in data.draw(batches(batch_of))]
    indented = json.dumps(json.loads(drawn[0]), indent=1).encode()
    odd = [b"{}", b"", drawn[0] + b" ", b" " + drawn[0], drawn[0].replace(b":", b": "), indented]
    values = data.draw(st.lists(st.sampled_from([*drawn, *odd]), min_size=1))
    stamp_ns = NOON_NS + data.draw(st.integers(-100, 400)) * NS
    came = [Message(offset, stamp_ns, value) for offset, value in enumerate(values)]
    ledgers = Ledger(), Ledger()
    first = take(ledgers[0], came, BOOK, Policy(), stamp_ns)
    again = lines_of(came, BOOK, Policy())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "frame_in", lambda _: None)
        second = take(ledgers[1], came, BOOK, Policy(), stamp_ns)
        assert list(again) == list(lines_of(came, BOOK, Policy()))
    assert ledgers[0] == ledgers[1]
    assert list(first.lines) == list(second.lines)
    assert first.refusals == second.refusals
    assert (first.batches, first.duplicates) == (second.batches, second.duplicates)


@given(st.data())
def test_some_events_of_a_frame_are_the_frame_of_some_events(
    batch_of: MakeBatch, data: st.DataObject
) -> None:
    values = [encode_columns(batch) for batch in data.draw(batches(batch_of))]
    places = data.draw(st.lists(st.sampled_from(range(len(values))), min_size=1, unique=True))
    whole = frame_in(values)
    assert whole is not None
    some = whole.take(np.array(sorted(places), np.intp))
    assert_same(some, frame_of([event_in(values[n]) for n in sorted(places)]))


@given(st.lists(names, min_size=1), st.data())
def test_packed_texts_are_texts(texts: list[str], data: st.DataObject) -> None:
    packed = packed_of(texts)
    rows = data.draw(st.lists(st.sampled_from(range(len(texts)))))
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(texts))] * 2)))
    for column in (packed, packed.take(np.arange(len(texts)))):
        assert column.tolist() == texts
        assert_alike(column.take(np.array(rows, np.intp)), Texts([texts[n] for n in rows]))
        assert json.loads(b"".join(column.json(start, stop))) == texts[start:stop]
    found = packed.utf8()
    if found is not None:
        data_, ends = found[0].tobytes(), found[1].tolist()
        assert [data_[a:b].decode() for a, b in pairwise(ends)] == texts
    assert (found is None) == any(json.dumps(t, ensure_ascii=False)[1:-1] != t for t in texts)


def assert_alike(one: Distinct, other: Distinct) -> None:
    assert one.tolist() == other.tolist()


def test_a_row_that_is_not_there_is_an_error() -> None:
    packed = packed_of(["a", "b"])
    for row in (-1, 2, 2**62):
        with pytest.raises(IndexError, match=f"row {row} of 2"):
            gathered(packed.data, packed.offsets, np.array([row]))
    with pytest.raises(ValueError, match="piece 0 has fewer"):
        without_frames(packed.data, packed.offsets, 3, 2)

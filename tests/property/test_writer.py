"""What the compiled writer writes is what Python writes, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from shutil import which
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering import tenant_costs, window_rows
from metering.amounts import Amounts
from metering.columns import Coded, Column, Ints, Texts
from metering.compiled import IS_COMPILED
from metering.costs import CostLine
from metering.lines import CostLines
from metering.money import ATTO_PER_USD
from metering.pricing import price_batch
from metering.tenant_costs import lines_in, tenant_values
from metering.tenant_messages import Part, in_python, writer_of
from tests.property.drawn_usage import BOOK, MakeBatch, batches

if not IS_COMPILED and which("cc") is None and which("gcc") is None:
    pytest.skip("no C compiler: the package does without the writer", allow_module_level=True)

from metering import writer
from tests.property.packed_texts import packed_of

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LEAST, MOST = -(2**63), 2**63 - 1
EDGES = sorted(
    {0, LEAST, MOST, *(s * 10**n + d for n in range(19) for d in (-1, 0) for s in (1, -1))}
)
numbers = st.integers(LEAST, MOST) | st.sampled_from(EDGES)
attos = st.integers(0, MOST) | st.sampled_from([n for n in EDGES if n >= 0])


def test_there_is_one() -> None:
    assert IS_COMPILED, "there is a C compiler, so install the package anew (`make env`)"


def texts_of(column: writer.Column, rows: int) -> list[bytes]:
    return writer.rows([b""] * rows, [column], b"")


def test_numbers_of_every_length_are_pythons() -> None:
    column = writer.Column(b"", writer.INTS, np.array(EDGES, np.int64))
    assert texts_of(column, len(EDGES)) == [b"%d" % n for n in EDGES]


@given(st.lists(numbers, min_size=1))
def test_any_number_is_pythons(drawn: list[int]) -> None:
    column = writer.Column(b"n=", writer.INTS, np.array(drawn, np.int64))
    assert texts_of(column, len(drawn)) == [b"n=%d" % n for n in drawn]


@given(st.lists(attos, min_size=1))
def test_dollars_have_all_of_their_decimals(drawn: list[int]) -> None:
    column = writer.Column(b"", writer.DOLLARS, np.array(drawn, np.int64))
    expected = [b'"%d.%018d"' % divmod(n, ATTO_PER_USD) for n in drawn]
    assert texts_of(column, len(drawn)) == expected


@given(st.lists(st.tuples(attos, st.integers(0, ATTO_PER_USD - 1), st.booleans()), min_size=1))
def test_amounts_are_those_of_rows_in_python(drawn: list[tuple[int, int, bool]]) -> None:
    dollars, atto, known = (np.array(values) for values in zip(*drawn, strict=True))
    parts: dict[bytes, Any] = {
        b'"a":': Amounts(dollars, atto, known),
        b',"b":': Amounts(dollars, atto),
        b',"n":': Ints(dollars),
        b',"m":': Ints(dollars, known),
    }
    heads = [b'{"%d":0,' % n for n in range(len(drawn))]
    columns = [window_rows._compiled(before, column) for before, column in parts.items()]
    found = writer.rows(heads, columns, b"}")
    assert found == list(window_rows.in_python(heads, parts))


@st.composite
def a_column(draw: st.DrawFn, rows: int) -> tuple[Column, bool]:
    """And whether it is money."""
    known = draw(st.none() | st.lists(st.booleans(), min_size=rows, max_size=rows))
    mask = None if known is None else np.array(known, np.bool_)
    match draw(st.integers(0, 3)):
        case 0:
            return Ints(
                np.array(draw(st.lists(numbers, min_size=rows, max_size=rows))), mask
            ), False
        case 1:
            return Ints(np.array(draw(st.lists(attos, min_size=rows, max_size=rows))), mask), True
        case 2:
            return drawn_codes(draw, rows), False
    ids = draw(st.lists(names, min_size=rows, max_size=rows))
    return packed_of(ids), False


def drawn_codes(draw: st.DrawFn, rows: int) -> Coded:
    values = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    codes = draw(st.lists(st.sampled_from(range(len(values))), min_size=rows, max_size=rows))
    return Coded([msgspec.json.encode(v) for v in values], np.array(codes, np.int32))


@given(st.data())
def test_columns_are_written_as_python_writes_them(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 40))
    drawn = [data.draw(a_column(rows)) for _ in range(data.draw(st.integers(0, 4)))]
    parts = [Part(b',"%d":' % n, *column) for n, column in enumerate(drawn)]
    order = np.array(data.draw(st.permutations(range(rows))), np.intp)
    leader = data.draw(st.none() | st.just(Part(b',"led":', drawn_codes(data.draw, rows))))
    write = writer_of(order, parts, leader, told_of)
    assert write.__self__.__class__ is writer.Writer  # type: ignore[attr-defined]
    taken = [part.take(order) for part in parts]
    expected = in_python(taken, None if leader is None else leader.take(order), told_of)
    for _ in range(3):
        start, stop = sorted(data.draw(st.tuples(*[st.integers(0, rows)] * 2)))
        if start < stop:
            assert write(b'{"x":0', start, stop) == expected(b'{"x":0', start, stop)
            json.loads(write(b'{"x":0', start, stop))


def told_of(used: list[int]) -> bytes:
    return b',"followers":%b' % msgspec.json.encode(used)


@pytest.mark.parametrize(
    "column",
    [
        Ints(np.array([2**70, 0], object)),
        Ints(np.array([True, False])),
        Texts(["a", "b"]),
    ],
)  # fmt: skip
def test_what_it_does_not_know_is_left_to_python(column: Column) -> None:
    write = writer_of(np.array([1, 0]), [Part(b',"a":', column)], None, told_of)
    assert json.loads(write(b'{"x":0', 0, 2))["a"] == column.tolist()[::-1]


def test_money_below_0_is_no_text_of_its_own() -> None:
    part = Part(b',"a":', Ints(np.array([-1, 5])), is_money=True)
    assert not hasattr(writer_of(np.array([0, 1]), [part], None, told_of), "__self__")


@pytest.mark.parametrize(("start", "stop"), [(-1, 1), (0, 3), (1, 1), (2, 1)])
def test_rows_that_are_not_there_are_refused(start: int, stop: int) -> None:
    column = writer.Column(b"", writer.INTS, np.array([1, 2]))
    with pytest.raises(IndexError, match=f"rows {start} to {stop} of 2"):
        writer.Writer(2, [column]).message(b"", start, stop)


@given(st.data())
def test_messages_of_tenants_are_the_same_with_it_and_without(
    batch_of: MakeBatch, data: st.DataObject
) -> None:
    drawn = data.draw(batches(batch_of))
    lines = [line for batch in drawn for line in price_batch(batch, BOOK)]
    columns = CostLines.of(lines)
    found = list(tenant_values(columns))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tenant_costs, "writer_of", in_order_in_python)
        assert list(tenant_values(columns)) == found
    read = [line for _, value in found for line in lines_in(value)]
    assert sorted(read, key=identity) == sorted(lines, key=identity)


def in_order_in_python(order: Any, parts: Any, leader: Any, followers: Any) -> Any:
    taken = [part.take(order) for part in parts]
    return in_python(taken, None if leader is None else leader.take(order), followers)


def identity(line: CostLine) -> tuple[str, int, int]:
    return line.source, line.sequence, line.position


def test_a_column_that_points_to_what_is_not_there_is_refused() -> None:
    ints, codes = np.array([1, 2]), np.array([0, 1], np.int32)
    data = np.zeros(4, np.uint8)
    makers: list[Callable[[], object]] = [
        lambda: writer.Column(b"", writer.CODES, codes, texts=[b"1"]),
        lambda: writer.Column(b"", writer.CODES, codes - 1, texts=[b"1"]),
        lambda: writer.Column(b"", writer.PACKED, data, offsets=np.array([0, 5])),
        lambda: writer.Column(b"", writer.PACKED, data, offsets=np.array([-1, 2])),
        lambda: writer.Column(b"", writer.PACKED, data, offsets=np.array([0, 3, 2])),
        lambda: writer.Column(b"", writer.INTS, ints, known=np.array([True])),
        lambda: writer.Column(b"", writer.AMOUNTS, ints),
        lambda: writer.Column(b"", writer.AMOUNTS, ints, atto=ints[:1]),
        lambda: writer.Writer(3, [writer.Column(b"", writer.INTS, ints)]),
        lambda: writer.Writer(2, [], writer.Column(b"", writer.CODES, codes[:1], texts=[b"1"])),
        lambda: writer.rows([b""], [writer.Column(b"", writer.INTS, ints)], b""),
        lambda: writer.rows(
            [b"", b""], [writer.Column(b"", writer.CODES, codes, texts=[b"1", b"2"])], b""
        ),
    ]
    for make in makers:
        with pytest.raises(IndexError, match="points to what is not there"):
            make()

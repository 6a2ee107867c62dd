"""Native blocks for a client's protocol version, as ClickHouse describes the format."""

from __future__ import annotations

import struct

import pytest

from sinks.embedded.errors import QueryError
from sinks.embedded.native import Described, for_version
from sinks.embedded.native_types import Opaque, column_end

INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
U64 = struct.Struct("<Q").pack


def string(text: bytes) -> bytes:
    assert len(text) < 128
    return bytes([len(text)]) + text


def block(rows: int, *columns: tuple[str, str, bytes]) -> bytes:
    head = bytes([len(columns), rows])
    return head + b"".join(string(n.encode()) + string(t.encode()) + d for n, t, d in columns)


def test_version_0_leaves_a_block_as_it_is() -> None:
    piece = block(1, ("a", "UInt8", b"\x07"))
    assert for_version(0, piece, None) == piece


def test_a_version_puts_a_block_info_before_every_block() -> None:
    piece = block(1, ("a", "UInt8", b"\x07"))
    assert for_version(54405, piece * 2, None) == (INFO + piece) * 2
    newest = INFO[:-1] + b"\x03\x00\x00"
    assert for_version(54480, piece, None).startswith(newest)


def test_a_time_zone_comes_back_from_what_the_engine_describes() -> None:
    piece = block(1, ("d", "DateTime", b"\0\0\0\0"), ("e", "DateTime", b"\1\0\0\0"))
    described = [Described(b"d", "DateTime('Asia/Tokyo')"), Described(b"e", "DateTime")]
    zoned = block(1, ("d", "DateTime('Asia/Tokyo')", b"\0\0\0\0"), ("e", "DateTime", b"\1\0\0\0"))
    assert for_version(54405, piece, described) == INFO + zoned
    assert for_version(54336, piece, described) == INFO + piece


def test_from_54454_on_each_column_says_that_its_serialization_is_the_usual_one() -> None:
    piece = block(2, ("a", "String", b"\x01x\x00"), ("b", "UInt8", b"\1\2"))
    flagged = block(2, ("a", "String", b"\0\x01x\x00"), ("b", "UInt8", b"\0\1\2"))
    assert for_version(54453, piece, None) == INFO + piece
    assert for_version(54454, piece, None) == INFO + flagged


LOW = U64(1) + U64(0x600) + U64(2) + b"\x00" + b"\x01x" + U64(3) + b"\0\1\1"


@pytest.mark.parametrize(
    ("type_name", "rows", "data"),
    [
        ("UInt8", 3, b"abc"),
        ("Bool", 3, b"\0\1\1"),
        ("Nothing", 2, b"00"),
        ("DateTime64(3, 'Europe/Berlin')", 2, bytes(16)),
        ("Decimal(38, 18)", 2, bytes(32)),
        ("Decimal(9, 2)", 2, bytes(8)),
        ("Decimal(76, 0)", 1, bytes(32)),
        ("FixedString(5)", 2, b"helloworld"),
        ("Enum8('a, (' = 1, 'it\\'s' = 2)", 2, b"\1\2"),
        ("IntervalDay", 1, bytes(8)),
        ("String", 2, b"\x02hi\x80\x01" + bytes(128)),
        ("Nullable(String)", 2, b"\0\1" + b"\x01x\x00"),
        ("Array(UInt16)", 2, U64(1) + U64(3) + bytes(6)),
        ("Array(Array(String))", 1, U64(2) + U64(1) + U64(1) + b"\x01x"),
        ("Map(String, Array(UInt8))", 1, U64(1) + b"\x01k" + U64(2) + b"\1\2"),
        ("Tuple(a UInt8, `b c` Nullable(UInt8))", 1, b"\1\0\2"),
        ("Tuple(UInt8, DateTime('UTC'))", 1, bytes(5)),
        ("Tuple()", 3, b"000"),
        ("Nested(a UInt8, b String)", 1, U64(1) + b"\1" + b"\x01x"),
        ("LowCardinality(String)", 3, LOW),
        ("LowCardinality(Nullable(String))", 3, LOW),
        ("Array(LowCardinality(String))", 1, U64(1) + U64(3) + LOW[8:]),
        ("SimpleAggregateFunction(sum, UInt64)", 1, bytes(8)),
        ("Point", 1, bytes(16)),
        ("Polygon", 1, U64(1) + U64(1) + bytes(16)),
        ("String", 0, b""),
        ("LowCardinality(String)", 0, b""),
    ],
)
def test_a_column_ends_where_its_type_says(type_name: str, rows: int, data: bytes) -> None:
    if type_name == "Array(LowCardinality(String))":
        data = U64(1) + U64(3) + LOW[8:]  # the dictionary's version stands before the offsets
    assert column_end(b"??" + data + b"more", 2, type_name, rows) == 2 + len(data)


@pytest.mark.parametrize("type_name", ["JSON", "Dynamic", "AggregateFunction(sum, UInt64)", "New"])
def test_a_type_that_only_the_engine_can_measure_is_opaque(type_name: str) -> None:
    with pytest.raises(Opaque):
        column_end(bytes(100), 0, type_name, 1)
    with pytest.raises(Opaque):
        column_end(bytes(100), 0, f"Array({type_name})", 1)


def test_a_column_that_is_cut_off_is_refused() -> None:
    piece = block(2, ("a", "String", b"\x05hell"))
    with pytest.raises(QueryError, match="client_protocol_version=54460"):
        for_version(54460, piece, None)


STATE = "AggregateFunction(uniq, UInt64)"


def test_an_opaque_column_ends_where_the_next_one_begins() -> None:
    piece = block(1, ("s", STATE, b"opaque"), ("b", "UInt8", b"\1"), ("t", STATE, b"more"))
    described = [Described(b"s", STATE), Described(b"b", "UInt8"), Described(b"t", STATE)]
    flagged = block(1, ("s", STATE, b"\0opaque"), ("b", "UInt8", b"\0\1"), ("t", STATE, b"\0more"))
    assert for_version(54460, piece, described) == INFO + flagged


def test_an_opaque_column_that_holds_what_looks_like_the_next_one_is_refused() -> None:
    lure = string(b"b") + string(b"String") + b"\x0a"
    honest = string(b"b") + string(b"String") + b"\x00"
    piece = block(1, ("s", STATE, b"opaque" + lure), ("b", "String", b""))[: -len(honest) + 1]
    piece += honest
    described = [Described(b"s", STATE), Described(b"b", "String")]
    assert piece.count(string(b"b") + string(b"String")) == 2
    with pytest.raises(QueryError, match="ambiguous"):
        for_version(54460, piece, described)


def test_a_block_of_many_columns_is_read() -> None:
    head = b"\x88\x27\x01"  # 5000 columns, 1 row
    column = string(b"a") + string(b"UInt8")
    assert for_version(54460, head + (column + b"\1") * 5000, None) == (
        INFO + head + (column + b"\0\1") * 5000
    )

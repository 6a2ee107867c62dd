"""Bytes that are no JSON, and JSON that is something else altogether."""

from __future__ import annotations

import re

from benchmarks.fuzz.batches import event, record
from benchmarks.fuzz.kinds import Draw, Fate, Made, kind

SHAPES = (
    b"[]", b"{}", b"null", b"true", b"0", b"-1.5e3", b'""', b'"usage"', b"[{}]", b"[[[[]]]]",
    b'{"a":{"b":{"c":[1,2,3]}}}', b'{"specversion":"1.0","data":{}}', b'{"requests":[]}',
    b'{"source":"x"}', b" \n[ ]\t", b'{"0":0,"1":1}',
)  # fmt: skip
RUBBISH = (
    b"", b" ", b"\x00", b"{", b"}", b"]", b"nul", b"tru", b"'a'", b"{a:1}", b'{"a":1,}', b"[1,]",
    b"01", b"+1", b".5", b"1.", b"0x10", b"--1", b'"\x00"', b'"\n"', b'{"a" 1}', b'{"a":1 "b":2}',
    b'{1:2}', b"// {}", b"/* */ {}", b"<xml/>", b"GET / HTTP/1.1\r\n\r\n", b"\x1f\x8b\x08\x00",
    b"\x80\x05\x95.", b"\x00\x00\x00\x00\x01Avro", b"{} {}", b"{}{}", b"[]]", b'"\\x41"',
    b'"\\u12"',
)  # fmt: skip
NOT_UTF8 = (b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xe2\x82")
SURROGATES = (b"\\ud800", b"\\udfff", b"\\ud800\\ud800", b"\\udc00\\ud800", b"a\\udbffb")
CONTROLS = (b"\x00", b"\n", b"\x1f", b"a\tb")


def swapped(value: bytes, field: str, new: bytes) -> bytes:
    """The value of a field's first appearance replaced; it must be no array and no object."""
    return re.sub(
        rb'("%b":)("[^"]*"|[^,}\]]+)' % field.encode(), lambda m: m[1] + new, value, count=1
    )


@kind("truncated at every place", Fate.MALFORMED, weight=60)
def truncated(draw: Draw) -> Made:
    value = draw.wrong()
    return Made(value[: 1 + draw.turn("truncated") % (len(value) - 1)])


@kind("a record, truncated", Fate.MALFORMED, weight=20)
def truncated_record(draw: Draw) -> Made:
    value = record(draw.stranger())
    return Made(value[: 1 + draw.turn("truncated records") % (len(value) - 1)])


@kind("rubbish", Fate.MALFORMED, weight=30)
def rubbish(draw: Draw) -> Made:
    return Made(draw.pick("rubbish", RUBBISH), key=None)


@kind("random bytes", Fate.MALFORMED, weight=20)
def random_bytes(draw: Draw) -> Made:
    return Made(b"\xff" + draw.random.randbytes(draw.random.randrange(600)))


@kind("no value", Fate.MALFORMED, weight=5)
def no_value(draw: Draw) -> Made:
    return Made(None, key=draw.pick("keys", (b"k", b"\xff")))


@kind("more behind the end", Fate.MALFORMED, weight=10)
def more_behind(draw: Draw) -> Made:
    value = draw.wrong()
    return Made(value + draw.pick("behind", (b"x", b"\x00", b"{}", b",", b"}", value, b"\xff")))


@kind("another encoding", Fate.MALFORMED, weight=5)
def other_encoding(draw: Draw) -> Made:
    text = draw.wrong().decode()
    return Made(text.encode(draw.pick("encodings", ("utf-16", "utf-32", "utf-8-sig", "utf-16-be"))))


@kind("not UTF-8 in a name", Fate.MALFORMED, weight=15)
def not_utf8(draw: Draw) -> Made:
    return Made(draw.wrong().replace(b'"acme"', b'"ac%bme"' % draw.pick("not UTF-8", NOT_UTF8)))


@kind("half of a surrogate pair in a name", Fate.MALFORMED, weight=15)
def surrogate(draw: Draw) -> Made:
    return Made(draw.wrong().replace(b'"acme"', b'"%b"' % draw.pick("surrogates", SURROGATES)))


@kind("a control character in a name", Fate.MALFORMED, weight=10)
def control(draw: Draw) -> Made:
    return Made(draw.wrong().replace(b'"acme"', b'"ac%bme"' % draw.pick("controls", CONTROLS)))


@kind("one byte is another", Fate.MALFORMED, weight=10)
def one_byte(draw: Draw) -> Made:
    """In the structure, so that no number or name can have become another sound one."""
    value = draw.wrong()
    at = draw.random.choice([m.start() for m in re.finditer(rb"[{}\[\]:]", value)])
    return Made(value[:at] + draw.pick("bytes", (b"\x00", b"\xff", b"#", b"@")) + value[at + 1 :])


@kind("a number of 5,000 digits", Fate.MALFORMED, weight=3)
def endless_number(draw: Draw) -> Made:
    field = draw.pick("endless", ("gpu_ns", "sequence", "input_tokens", "end_epoch_ns", "speedup"))
    return Made(swapped(draw.wrong(), field, b"9" * 5000))


@kind("another shape", Fate.INVALID, weight=30)
def shape(draw: Draw) -> Made:
    return Made(draw.pick("shapes", SHAPES))


@kind("the event within another", Fate.INVALID, weight=5)
def within(draw: Draw) -> Made:
    value = event(draw.stranger())
    around = draw.pick("within", (b"[%b]", b'{"data":%b}', b'{"specversion":"1.0","data":%b}'))
    return Made(around % value)

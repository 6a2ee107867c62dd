"""Records of a server that can't be finished, or that it would be dangerous to finish."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.fuzz.batches import record
from benchmarks.fuzz.kinds import Draw, Fate, Made, kind
from benchmarks.fuzz.text_kinds import swapped

VERSIONS = (b"2", b"0", b"-1", b'"1"', b"null", b"1.5", b"[]", b"{}", b"9" * 300)
FIELDS = (
    "source", "boot_id", "model", "device", "speedup", "operation", "rule", "requests", "payers",
    "payer", "sequence", "start_ns", "end_ns", "end_epoch_ns", "share_ns", "device_ns",
    "prefill_ns", "decode_ns", "input_tokens", "cached_input_tokens", "output_tokens",
    "reasoning_tokens", "rows", "status", "more",
)  # fmt: skip
RULES = (
    b"null", b"[]", b"{}", b'""', b'["equal-split"]', b'["by-the-moon",1,{},null]',
    b'["equal-split",99,{},null]', b'["affine-shapley",1,{"fixed_ps":-1},null]',
    b'["affine-shapley",1,{"fixed_ps":"1"},null]', b'["affine-shapley",1,{"fixed_ps":[1]},null]',
    b'["affine-shapley",1,{"fixed_ps":null},null]', b'["affine-shapley",1,[],null]',
    b'[["equal-split"],1,{},null]', b'[null,1,{},null]', b'["equal-split",1,{},null,5]',
    b'["affine-shapley",1,{"fixed_ps":1},"%b"]' % (b"c" * 300),
    b'["affine-shapley",1,{"fixed_ps":NaN},null]',
)  # fmt: skip
TIMES: dict[str, tuple[bytes, ...]] = {
    "start_ns": (b"-1", b"NaN", b"Infinity", b"1e400", b'"1"', b"null", b"true", b"9" * 4000),
    "end_ns": (b"0", b"-1", b"NaN", b"-Infinity", b"1e400", b'"1"', b"null", b"[]", b"9" * 4000),
    "share_ns": (b"-1", b"9" * 30, b"NaN", b"1e300", b"0.5", b'"1"', b"{}", b"9" * 4000),
    "device_ns": (b"-1", b"NaN", b"0.5", b'"1"', b"[]"),
    "prefill_ns": (b"-1", b"9" * 4000, b"NaN", b"1e300", b'"1"', b"[]"),
    "sequence": (b"-1", b"9007199254740992", b"NaN", b"1.5", b'"1"', b"null", b"true"),
    "end_epoch_ns": (b"-1", b"9" * 20, b"NaN", b'"1"', b"null", b"1e18"),
    "speedup": (b"0", b"-1", b"true", b'"1"', b"1.0", b"4294967296"),
}
COLUMNS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "rows")
ENTRIES = (b"[]", b"[1,2,3,4]", b"[-1]", b"[true]", b'["1"]', b"[1.0]", b"[NaN]", b"[null]",
           b"[[]]", b"{}", b'"1"', b"null", b"-1", b"9" * 400, b"[%b]" % (b"9" * 4000))  # fmt: skip
PAYERS = (
    (b'"payer":[0]', b'"payer":[-1]'),
    (b'"payer":[0]', b'"payer":[1]'),
    (b'"payer":[0]', b'"payer":[true]'),
    (b'"payer":[0]', b'"payer":["0"]'),
    (b'"payer":[0]', b'"payer":[]'),
    (b'"payer":[0]', b'"payer":0'),
    (b'["acme","","","",null,"parameter"]', b"[]"),
    (b'["acme","","","",null,"parameter"]', b"null"),
    (b'["acme","","","",null,"parameter"]', b'"parameter"'),
    (b'["acme","","","",null,"parameter"]', b'["","","","",null,"parameter"]'),
    (b'["acme","","","",null,"parameter"]', b'["\\ud800","","","",null,"parameter"]'),
    (b'["acme","","","",null,"parameter"]', b'[7,"","","",null,"parameter"]'),
    (b'["acme","","","",null,"parameter"]', b'["acme","","","",null,"root"]'),
    (b'["acme","","","",null,"parameter"]', b'["acme",[],{},"",null,"parameter"]'),
)
MORE = (
    b"null", b"[]", b"1", b'{"0":null}', b'{"0":1}', b'{"1":{}}', b'{"-1":{}}', b'{"x":{}}',
    b'{"0":{"status":"great"}}', b'{"0":{"status":["ok"]}}', b'{"0":{"queue_ns":-1}}',
    b'{"0":{"queue_ns":"1"}}', b'{"0":{"row_tokens":1}}', b'{"0":{"row_tokens":[1]}}',
    b'{"0":{"row_tokens":[[1]]}}', b'{"0":{"turns":[[1]]}}', b'{"0":{"turns":1}}',
    b'{"9223372036854775808":{}}', b'{"%b":{}}' % (b"9" * 5000),
)  # fmt: skip
PADDED = b'["padded-length",1,{"input_token_ps":1},null]'
DANGERS: tuple[Callable[[bytes], bytes], ...] = (
    # Integers beyond what a float can hold beside a float.
    lambda v: swapped(swapped(v, "share_ns", b"1e300"), "end_ns", b"9" * 400),
    lambda v: swapped(swapped(v, "device_ns", b"1.5"), "end_ns", b"9" * 400),
    lambda v: _ruled(
        v, b'["affine-shapley",1,{"fixed_ps":1.5,"input_token_ps":%b},null]' % (b"9" * 400)
    ),
    # A number that can be reckoned with and not be written.
    lambda v: swapped(swapped(v, "prefill_ns", b"9" * 4000), "share_ns", b"9" * 4000),
    # A text, which Python can multiply too.
    lambda v: swapped(v, "prefill_ns", b'"1"'),
    lambda v: _ruled(v, b'["affine-shapley",1,{"output_token_ps":4000000000},null]').replace(
        b'"output_tokens":[20]', b'"output_tokens":["x"]'
    ),
    lambda v: _ruled(v, b'["padded-length-bearer",1,{"output_token_ps":1},null]').replace(
        b'"more":{}', b'"more":{"0":{"row_tokens":[%b]}}' % b",".join([b'[1,"x"]'] * 24)
    ),
    # Rows that nobody has, each of which would be divided among.
    lambda v: swapped(_ruled(v, PADDED), "rows", b"4294967295"),
    lambda v: swapped(_ruled(v, PADDED), "rows", b"200000"),
    lambda v: swapped(_ruled(v, PADDED), "rows", b"9" * 30),
    # Nested nearly as deep as a parser follows.
    lambda v: v.replace(b'"record":1', b'"record":' + b"[" * 900 + b"]" * 900, 1),
    lambda v: v.replace(b'"record":1', b'"record":' + b"[" * 700 + b"]" * 700, 1),
    lambda v: v.replace(b'"status":"ok"', b'"status":' + b"[" * 900 + b"]" * 900, 1),
    lambda v: v.replace(b'"status":"ok"', b'"status":' + b"[" * 700 + b"]" * 700, 1),
)  # fmt: skip


def _ruled(value: bytes, rule: bytes) -> bytes:
    return value.replace(b'["equal-split",1,{},null]', rule, 1)


@kind("a record of another version", Fate.INVALID, weight=20)
def version(draw: Draw) -> Made:
    other = draw.pick("record versions", VERSIONS)
    return Made(record(draw.stranger()).replace(b'"record":1', b'"record":' + other, 1))


@kind("a record that leaves its rule to the shipper", Fate.INVALID, weight=10)
def shippers_rule(draw: Draw) -> Made:
    return Made(_ruled(record(draw.stranger()), b"null"))


@kind("a record with a rule that nobody knows, or a wrong one", Fate.INVALID, weight=20)
def rule(draw: Draw) -> Made:
    return Made(_ruled(record(draw.stranger()), draw.pick("rules", RULES)))


@kind("a record without one of its fields", Fate.INVALID, weight=20)
def missing(draw: Draw) -> Made:
    field = draw.pick("record fields", FIELDS).encode()
    return Made(record(draw.stranger()).replace(b'"%b":' % field, b'"not_%b":' % field, 1))


@kind("a record with numbers that are none", Fate.INVALID, weight=25)
def times(draw: Draw) -> Made:
    field = draw.pick("record times", tuple(TIMES))
    return Made(swapped(record(draw.stranger()), field, draw.pick(f"times {field}", TIMES[field])))


@kind("a record with a wrong column", Fate.INVALID, weight=20)
def column(draw: Draw) -> Made:
    field, entries = draw.pick("columns", COLUMNS), draw.pick("entries", ENTRIES)
    value = record(draw.stranger())
    at = value.index(b'"%b":' % field.encode())
    head, tail = value[:at], value[at:]
    return Made(head + b'"%b":' % field.encode() + entries + b"," + tail[_end_of(tail) :])


def _end_of(tail: bytes) -> int:
    """Behind the comma after the first value, a number or an array of numbers."""
    colon = tail.index(b":") + 1
    if tail[colon : colon + 1] == b"[":
        return tail.index(b"]", colon) + 2
    return tail.index(b",", colon) + 1


@kind("a record that nobody pays for", Fate.INVALID, weight=20)
def payer(draw: Draw) -> Made:
    old, new = draw.pick("payers", PAYERS)
    return Made(record(draw.stranger()).replace(old, new, 1))


@kind("a record that tells more, wrongly", Fate.INVALID, weight=15)
def more(draw: Draw) -> Made:
    told = draw.pick("more", MORE)
    return Made(record(draw.stranger()).replace(b'"more":{}', b'"more":' + told, 1))


@kind("a record that it is dangerous to finish", Fate.INVALID, weight=5)
def danger(draw: Draw) -> Made:
    return Made(draw.pick("dangers", DANGERS)(record(draw.stranger())))


@kind("a record that is nested too deep", Fate.MALFORMED, weight=2)
def nested(draw: Draw) -> Made:
    value = record(draw.stranger())
    return Made(value.replace(b'"more":{}', b'"more":' + b"[" * 5000 + b"]" * 5000))

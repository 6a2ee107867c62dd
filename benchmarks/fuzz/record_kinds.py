"""Records of a server that can't be finished, or that it would be dangerous to finish.

What is wrong with one of a record's requests is said in its event, and refuses nothing:
``tests/unit/test_invalid_requests.py`` has those.
"""

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
    "sequence": (b"-1", b"9007199254740992", b"NaN", b"1.5", b'"1"', b"null", b"true"),
    "end_epoch_ns": (b"-1", b"9" * 20, b"NaN", b'"1"', b"null", b"1e18"),
    "speedup": (b"0", b"-1", b"true", b'"1"', b"1.0", b"4294967296"),
}
DANGERS: tuple[Callable[[bytes], bytes], ...] = (
    # Integers beyond what a float can hold beside a float.
    lambda v: swapped(swapped(v, "share_ns", b"1e300"), "end_ns", b"9" * 400),
    lambda v: swapped(swapped(v, "device_ns", b"1.5"), "end_ns", b"9" * 400),
    lambda v: _ruled(
        v, b'["affine-shapley",1,{"fixed_ps":1.5,"input_token_ps":%b},null]' % (b"9" * 400)
    ),
    # Nested nearly as deep as a parser follows.
    lambda v: v.replace(b'"record":1', b'"record":' + b"[" * 900 + b"]" * 900, 1),
    lambda v: v.replace(b'"record":1', b'"record":' + b"[" * 700 + b"]" * 700, 1),
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


@kind("a record that it is dangerous to finish", Fate.INVALID, weight=5)
def danger(draw: Draw) -> Made:
    return Made(draw.pick("dangers", DANGERS)(record(draw.stranger())))


@kind("a record that is nested too deep", Fate.MALFORMED, weight=2)
def nested(draw: Draw) -> Made:
    value = record(draw.stranger())
    return Made(value.replace(b'"more":{}', b'"more":' + b"[" * 5000 + b"]" * 5000))

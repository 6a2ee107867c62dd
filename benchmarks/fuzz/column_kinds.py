"""Events in columns: sound ones, and those that would be read wrongly if nobody looked."""

from __future__ import annotations

import re
from collections.abc import Callable

from benchmarks.fuzz.batches import columns
from benchmarks.fuzz.kinds import Draw, Fate, Made, kind
from metering.usage_columns import MOST_REQUESTS

COUNTS = (b"rows", b"input_tokens", b"cached_input_tokens", b"output_tokens", b"gpu_ns")
WRONG_COUNTS = (
    b"[]", b"[1,2,3,4,5,6,7,8,9]", b"-1", b"true", b'"1"', b"1.0", b"NaN", b"null", b"{}", b"[[]]",
    b"9007199254740992", b"9" * 30, b"9" * 4000,
)  # fmt: skip
WRONG_PAYERS = (
    b"-1", b"99", b"true", b'"0"', b"null", b"0.0", b"[]", b"{}", b"9" * 30,
)  # fmt: skip
WRONG_PAYER_LISTS = (
    b"[]", b"{}", b"null", b'"abcdef"', b'["abcdef"]', b'[["acme"]]', b"[[1,2,3,4,5,6]]",
    b'[["","","","","none",null]]', b'[["acme","","","","else",null]]',
    b'[["acme","","","",[],null]]', b'[["acme","","","","none",7]]',
)  # fmt: skip
WRONG_REQUESTS = (
    b"null",
    b"[]",
    b"{}",
    b'"x"',
    b"7",
    b'{"request_id":[]}',
    b'{"request_id":"abc"}',
)
VERSIONS = (b"2", b"0", b"-1", b"true", b"1.0", b'"1"', b"null", b"[1]", b"9" * 400)


@kind("sound, in columns", Fate.STORED, weight=40)
def sound(draw: Draw) -> Made:
    batch = draw.batch()
    return Made(columns(batch), batch=batch)


@kind("columns of another version", Fate.INVALID, weight=15)
def version(draw: Draw) -> Made:
    return _with(draw, rb'^\{"columns":1', b'{"columns":' + draw.pick("columns 1", VERSIONS))


@kind("a column that is none", Fate.INVALID, weight=40)
def count(draw: Draw) -> Made:
    return _column(draw, draw.pick("columns 2", COUNTS), draw.pick("columns 3", WRONG_COUNTS))


@kind("a column's entry that is none", Fate.INVALID, weight=20)
def entry(draw: Draw) -> Made:
    wrong = draw.pick("columns 4", (b"true", b"1.0", b'"1"', b"-1", b"null", b"[]", b"{}"))
    return _with(draw, rb'"output_tokens":\[\d+', b'"output_tokens":[' + wrong)


@kind("a payer that is nowhere", Fate.INVALID, weight=20)
def payer(draw: Draw) -> Made:
    return _column(draw, b"payer", draw.pick("columns 5", WRONG_PAYERS))


@kind("payers that are none", Fate.INVALID, weight=20)
def payers(draw: Draw) -> Made:
    return _with(
        draw, rb'"payers":.*?\]\]', b'"payers":' + draw.pick("columns 6", WRONG_PAYER_LISTS)
    )


@kind("requests that are no columns", Fate.INVALID, weight=15)
def requests(draw: Draw) -> Made:
    return _with(
        draw,
        rb'"requests":\{.*\}\}$',
        b'"requests":' + draw.pick("columns 7", WRONG_REQUESTS) + b"}",
    )


@kind("columns that are cut off", Fate.MALFORMED, weight=20)
def cut(draw: Draw) -> Made:
    whole = columns(draw.batch())
    return Made(whole[: draw.random.randrange(len(b'{"columns":'), len(whole))])


@kind("millions of requests in a few columns", Fate.INVALID, weight=1)
def millions(draw: Draw) -> Made:
    ids = b",".join([b'""'] * draw.pick("columns 8", (MOST_REQUESTS + 1, 10**6)))
    return _with(draw, rb'"request_id":\[.*?\]', b'"request_id":[' + ids + b"]")


def _column(draw: Draw, name: bytes, value: bytes) -> Made:
    return _with(
        draw, rb'(?<=,)"%b":(?:\[[^]]*\]|[^,}]+)(?=[^{]*\}\}$)' % name, b'"%b":%b' % (name, value)
    )


def _with(draw: Draw, pattern: bytes, text: bytes) -> Made:
    whole = columns(draw.batch())
    literal: Callable[[re.Match[bytes]], bytes] = lambda _: text  # noqa: E731
    changed, found = re.subn(pattern, literal, whole, count=1, flags=re.DOTALL)
    assert found, (pattern, whole[:200])  # noqa: S101  # the pattern is ours
    return Made(changed)

"""Messages that are dear to read or to send: deep, long, large, and what no client writes. They are
few."""

from __future__ import annotations

from benchmarks.fuzz.batches import Part, event
from benchmarks.fuzz.kinds import RIGHT, Draw, Fate, Made, OddName, kind
from streams.topics import LARGEST_FRAME_BYTES

BRACKETS = 100_000
MIB = 1024**2


@kind("100,000 brackets", Fate.MALFORMED, every=1000, most=100)
def brackets(draw: Draw) -> Made:
    n = draw.turn("brackets") % 5
    value = draw.wrong()
    deep = (b"[" * BRACKETS, b'{"a":' * BRACKETS, b"[" * BRACKETS + b"]" * BRACKETS)
    if n < 3:
        return Made(deep[n])
    return Made(value[:-1] + b',"new":' + deep[2] + b"}" if n == 3 else value[:-1] + deep[1])


@kind("a name of a megabyte", Fate.INVALID, every=2000, most=50)
def long_name(draw: Draw) -> Made:
    return Made(draw.wrong().replace(b'"acme"', b'"%b"' % (b"x" * MIB)))


@kind("requests by the hundred thousand, all wrong", Fate.INVALID, every=4000, most=20)
def wrong_requests(draw: Draw) -> Made:
    value = draw.wrong()
    wrong = draw.pick("wrong requests", (b"{}", b"1", b"[]", b"null"))
    many = b",".join([wrong] * 300_000)
    return Made(value[: value.index(b'"requests":')] + b'"requests":[' + many + b"]}")


@kind("2,000 requests, all sound", Fate.STORED, every=5000, most=10)
def many_requests(draw: Draw) -> Made:
    parts = tuple(Part(f"tenant-{n % 12}", n, 1, 1000) for n in range(2000))
    batch = draw.batch(parts=parts)
    return Made(event(batch), batch=batch)


@kind("phases of 20,000 requests that do not add up", Fate.INVALID, every=7000, most=5)
def many_phases(draw: Draw) -> Made:
    """What is wrong could be said by telling all of them."""
    parts = tuple(Part("acme", 1, 1, 10**9) for _ in range(20_000))
    value = event(draw.stranger()._replace(parts=parts))
    value = value.replace(b'"prefill_gpu_ns":null', b'"prefill_gpu_ns":123456789')
    return Made(value.replace(b'"prefill_ns":null', b'"prefill_ns":1'))


@kind("20,000 headers", Fate.WRONG_TYPE, every=2500, most=10)
def many_headers(draw: Draw) -> Made:
    return Made(draw.wrong(), (("ce_type", b"x"), *((f"h{n}", b"") for n in range(20_000))))


@kind("headers of a megabyte", Fate.MALFORMED, every=6000, most=10)
def long_headers(draw: Draw) -> Made:
    return Made(b"{", (*RIGHT, ("trace", draw.random.randbytes(MIB)), ("n" * MIB, b"")))


@kind("rubbish that just fits into the topic", Fate.MALFORMED, every=9000, most=5)
def just_fits(draw: Draw) -> Made:
    return Made(b"{" + draw.random.randbytes(LARGEST_FRAME_BYTES + 63 * 1024), ())


@kind("an unknown field that just fits into the topic", Fate.STORED, every=9500, most=3)
def large_field(draw: Draw) -> Made:
    batch = draw.batch()
    value = event(batch)
    more = b"y" * (LARGEST_FRAME_BYTES - len(value))
    return Made(value[:-1] + b',"new":"' + more + b'"}', batch=batch)


@kind("far more than the topic takes, packed", Fate.MALFORMED, every=8000, most=3)
def packed(draw: Draw) -> Made:
    """The broker measures what arrives, and that is small."""
    return Made(b"[" + b" " * (40 * MIB + draw.turn("packed")), packed=True)


@kind("a header's name that is not UTF-8", Fate.STORED, every=1000, most=100)
def odd_name(draw: Draw) -> Made:
    batch = draw.batch()
    return Made(event(batch), ((OddName("x-\\xff"), b"v"), *RIGHT), batch=batch, odd=True)


@kind("rubbish under a header's name that is not UTF-8", Fate.MALFORMED, every=1500, most=100)
def odd_rubbish(draw: Draw) -> Made:
    return Made(draw.wrong()[:-1], (*RIGHT, (OddName("\\xff\\xff"), None)), odd=True)

"""Sound JSON of the right shape, in which a field has what it can't have."""

from __future__ import annotations

import re

from benchmarks.fuzz.kinds import Draw, Fate, Made, kind
from benchmarks.fuzz.text_kinds import swapped

COUNTS = (
    "sequence", "speedup", "batch_size", "wall_ns", "gpu_ns", "overlap_ns", "stalled_ns",
    "prefill_ns", "decode_ns", "start_monotonic_ns", "end_epoch_ns", "rows", "input_tokens",
    "cached_input_tokens", "output_tokens", "reasoning_tokens", "queue_ns", "input_gpu_ns",
    "output_gpu_ns", "padding_gpu_ns", "prefill_gpu_ns", "decode_gpu_ns",
)  # fmt: skip
NEVER_NULL = tuple(
    name
    for name in COUNTS
    if name not in ("overlap_ns", "prefill_ns", "decode_ns", "queue_ns")
    and name not in ("prefill_gpu_ns", "decode_gpu_ns")
)
NAMES = (
    "source", "boot_id", "model", "model_version", "instance", "accelerator", "region",
    "deployment", "apportionment_rule", "tenant",
)  # fmt: skip
MAY_BE_EMPTY = ("device", "request_id", "team", "project", "user")
REQUIRED = (
    "source", "sequence", "boot_id", "model", "model_version", "instance", "accelerator", "region",
    "deployment", "batch_size", "wall_ns", "gpu_ns", "start_monotonic_ns", "end_epoch_ns",
    "apportionment_rule", "request_id", "tenant", "operation", "input_gpu_ns",
)  # fmt: skip
WORDS = {
    "operation": (b'"Chat"', b'"image"', b'""', b"1", b"null"),
    "status": (b'"OK"', b'"great"', b'""', b"0", b"null", b'"cache_hit"', b'"rejected"'),
    "identity_source": (b'"root"', b'""', b"null"),
    "timing_source": (b'"sundial"', b'""', b"null"),
    "executed": (b'"yes"', b"1", b"0", b'"true"', b"null", b"false", b"[]"),
}
HUGE = (b"9223372036854775808", b"18446744073709551616", b"9" * 40, b"9" * 4000)


def _in_counts(draw: Draw, name: str, values: tuple[bytes, ...]) -> Made:
    field = draw.pick(f"{name}: fields", COUNTS)
    return Made(swapped(draw.wrong(), field, draw.random.choice(values)))


@kind("a negative count", Fate.INVALID, weight=30)
def negative(draw: Draw) -> Made:
    return _in_counts(draw, "negative", (b"-1", b"-9007199254740993", b"-" + b"9" * 30))


@kind("a fraction for an integer", Fate.INVALID, weight=20)
def fraction(draw: Draw) -> Made:
    return _in_counts(draw, "fraction", (b"0.5", b"1.0000000001", b"1e-9", b"7.25"))


@kind("a float for an integer", Fate.INVALID, weight=15)
def whole_float(draw: Draw) -> Made:
    return _in_counts(draw, "float", (b"5.0", b"1e3", b"0.0", b"-0.0"))


@kind("a bool for an integer", Fate.INVALID, weight=15)
def boolean(draw: Draw) -> Made:
    return _in_counts(draw, "bool", (b"true", b"false"))


@kind("a string for an integer", Fate.INVALID, weight=20)
def string(draw: Draw) -> Made:
    return _in_counts(draw, "string", (b'"5"', b'""', b'"0x10"', b'" 7 "', b'"1_0"', b'"NaN"'))


@kind("another type for an integer", Fate.INVALID, weight=15)
def other(draw: Draw) -> Made:
    return _in_counts(draw, "other", (b"[]", b"{}", b"[1]", b'{"$numberLong":"5"}'))


@kind("null for an integer", Fate.INVALID, weight=10)
def null(draw: Draw) -> Made:
    return Made(swapped(draw.wrong(), draw.pick("null", NEVER_NULL), b"null"))


@kind("a number that is too large", Fate.INVALID, weight=20)
def huge(draw: Draw) -> Made:
    return _in_counts(draw, "huge", HUGE)


@kind("NaN, Infinity, 1e400", Fate.INVALID, weight=20)
def not_finite(draw: Draw) -> Made:
    return _in_counts(draw, "not finite", (b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400"))


@kind("a count of 2**53", Fate.INVALID, weight=10)
def bound(draw: Draw) -> Made:
    field = draw.pick("bound", ("sequence", "gpu_ns", "wall_ns", "input_tokens", "output_tokens"))
    return Made(swapped(draw.wrong(), field, b"9007199254740992"))


@kind("a name that is empty, long or none", Fate.INVALID, weight=20)
def name(draw: Draw) -> Made:
    wrong = (b'""', b'"%b"' % (b"n" * 257), b"0", b"true", b"null", b"[]", b"{}")
    return Made(swapped(draw.wrong(), draw.pick("names", NAMES), draw.random.choice(wrong)))


@kind("an optional name that is long or none", Fate.INVALID, weight=10)
def optional_name(draw: Draw) -> Made:
    wrong = (b'"%b"' % (b"n" * 257), b"0", b"false", b"null", b"[]")
    field = draw.pick("optional names", MAY_BE_EMPTY)
    return Made(swapped(draw.wrong(), field, draw.random.choice(wrong)))


@kind("a word that nobody knows", Fate.INVALID, weight=15)
def word(draw: Draw) -> Made:
    field = draw.pick("words", tuple(WORDS))
    return Made(swapped(draw.wrong(), field, draw.random.choice(WORDS[field])))


@kind("a field that is missing", Fate.INVALID, weight=30)
def missing(draw: Draw) -> Made:
    field = draw.pick("missing", REQUIRED).encode()
    return Made(re.sub(rb'"%b":("[^"]*"|[^,}\]]+),' % field, b"", draw.wrong(), count=1))


@kind("a field that is misspelt", Fate.INVALID, weight=10)
def misspelt(draw: Draw) -> Made:
    field = draw.pick("misspelt", REQUIRED)
    return Made(draw.wrong().replace(f'"{field}":'.encode(), f'"{field.upper()}":'.encode()))


@kind("requests that are none", Fate.INVALID, weight=15)
def requests(draw: Draw) -> Made:
    wrong = draw.pick(
        "requests", (b"[]", b"{}", b"null", b"[null]", b"[[]]", b"[{}]", b'"[]"', b"1", b"[1,2,3]")
    )
    value = draw.wrong()
    return Made(value[: value.index(b'"requests":')] + b'"requests":' + wrong + b"}")


@kind("a key twice, the last one wrong", Fate.INVALID, weight=10)
def key_twice(draw: Draw) -> Made:
    return Made(draw.wrong()[:-1] + b',"sequence":-1}')


@kind("from before 1970", Fate.INVALID, weight=10)
def before_1970(draw: Draw) -> Made:
    times = (b"-1", b"-2208988800000000000", b"-9223372036854775808")
    return Made(swapped(draw.wrong(), "end_epoch_ns", draw.pick("before 1970", times)))


@kind("from the future", Fate.FUTURE, weight=25)
def future(draw: Draw) -> Made:
    later = (draw.now_ns + 3600 * 10**9, 2**62, 2**63 - 1)
    end_ns = str(draw.pick("future", later)).encode()
    return Made(swapped(draw.wrong(), "end_epoch_ns", end_ns))

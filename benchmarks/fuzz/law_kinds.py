"""Events whose every field is sound, and whose parts do not sum to their wholes."""

from __future__ import annotations

import re
from collections.abc import Callable

from benchmarks.fuzz.batches import event
from benchmarks.fuzz.kinds import Draw, Fate, Made, kind
from benchmarks.fuzz.text_kinds import swapped

Break = Callable[[bytes], bytes]


def _plus(value: bytes, field: str, more: int) -> bytes:
    pattern = rb'("%b":)(\d+)' % field.encode()
    return re.sub(pattern, lambda m: m[1] + b"%d" % (int(m[2]) + more), value, count=1)


def _last_plus(value: bytes, field: str, more: int) -> bytes:
    """In the last request."""
    at = value.rindex(b'{"request_id"')
    return value[:at] + _plus(value[at:], field, more)


def _phases(value: bytes, whole: bytes, part: bytes) -> bytes:
    return swapped(swapped(value, "prefill_ns", whole), "prefill_gpu_ns", part)


SUMS: tuple[Break, ...] = (
    lambda v: _plus(v, "batch_size", 1),
    lambda v: swapped(v, "batch_size", b"4294967295"),
    lambda v: _plus(v, "rows", 1),
    lambda v: _plus(v, "gpu_ns", 1),
    lambda v: _plus(v, "gpu_ns", -1),
    lambda v: _plus(v, "wall_ns", 1),
    lambda v: _plus(v, "overlap_ns", 1),
    lambda v: _plus(v, "stalled_ns", 1),
    lambda v: _plus(v, "input_gpu_ns", 1),
    lambda v: _plus(v, "output_gpu_ns", -1),
    lambda v: _last_plus(v, "gpu_ns", 1),
    lambda v: swapped(v, "input_gpu_ns", b"9007199254740991"),
)
WITHIN: tuple[Break, ...] = (
    lambda v: _plus(v, "cached_input_tokens", 10_000),
    lambda v: _plus(v, "reasoning_tokens", 10_000),
    lambda v: _plus(v, "padding_gpu_ns", 10**10),
)
PHASES: tuple[Break, ...] = (
    lambda v: _phases(v, b"1", b"2"),
    lambda v: _phases(v, b"2", b"null"),
    lambda v: _phases(v, b"9000000000000", b"9000000000000"),
    lambda v: swapped(swapped(v, "decode_ns", b"5"), "decode_gpu_ns", b"4"),
)


@kind("sums that do not add up", Fate.INVALID, weight=40)
def sums(draw: Draw) -> Made:
    return Made(draw.pick("sums", SUMS)(draw.wrong()))


@kind("requests whose tokens sum to more than one may have", Fate.INVALID, weight=5)
def large_sums(draw: Draw) -> Made:
    batch = draw.stranger()
    part = batch.parts[0]._replace(input_tokens=2**53 - 1)
    return Made(event(batch._replace(parts=(part, part))))


@kind("a part that is larger than its whole", Fate.INVALID, weight=15)
def within(draw: Draw) -> Made:
    return Made(draw.pick("wholes", WITHIN)(draw.wrong()))


@kind("phases that do not add up", Fate.INVALID, weight=15)
def phases(draw: Draw) -> Made:
    return Made(draw.pick("phases", PHASES)(draw.wrong()))


@kind("a request that is there twice, or left out", Fate.INVALID, weight=10)
def other_count(draw: Draw) -> Made:
    value = draw.wrong()
    at = value.index(b'{"request_id"')
    if draw.turn("other count") % 2:
        return Made(value[:-2] + b"," + value[at:])
    return Made(value[:at] + value[at:].replace(b'{"request_id"', b'{"no_id"'))


@kind("GPU time without execution", Fate.INVALID, weight=10)
def unexecuted(draw: Draw) -> Made:
    batch = draw.stranger()
    part = batch.parts[0]._replace(status="rejected")
    return Made(event(batch._replace(parts=(part,))))

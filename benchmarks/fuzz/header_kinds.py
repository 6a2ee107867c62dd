"""CloudEvents attributes that say it is something else."""

from __future__ import annotations

from benchmarks.fuzz.kinds import RIGHT, Draw, Fate, Header, Made, kind

SPEC, TYPE = RIGHT[0], RIGHT[1]
OTHER_VERSIONS = (b"0.3", b"1.1", b"1", b"1.0 ", b"", b"\xff", b"1.0\x00", b"9" * 5000, None)
OTHER_TYPES = (
    b"inference-meter.usage.batch.v2",
    b"inference-meter.usage.batch",
    b"inference-meter.cost.request.v1",
    b"INFERENCE-METER.USAGE.BATCH.V1",
    b"inference-meter.usage.batch.v1\n",
    b"",
    b"\xc3\x28",
    b"\x00" * 3000,
    None,
)


@kind("another specversion", Fate.WRONG_TYPE, weight=20)
def specversion(draw: Draw) -> Made:
    other: Header = ("ce_specversion", draw.pick("versions", OTHER_VERSIONS))
    return Made(draw.wrong(), (other, *RIGHT[1:]))


@kind("another type", Fate.WRONG_TYPE, weight=20)
def event_type(draw: Draw) -> Made:
    other: Header = ("ce_type", draw.pick("types", OTHER_TYPES))
    return Made(draw.wrong(), (SPEC, other, *RIGHT[2:]))


@kind("a type alone, and another one", Fate.WRONG_TYPE, weight=5)
def lonely_type(draw: Draw) -> Made:
    return Made(draw.wrong(), (("ce_type", draw.pick("lonely types", OTHER_TYPES)),), None)


@kind("an attribute twice, the first one wrong", Fate.WRONG_TYPE, weight=5)
def first_wrong(draw: Draw) -> Made:
    wrong: Header = draw.pick("first wrong", (("ce_type", b"another"), ("ce_specversion", b"2.0")))
    return Made(draw.wrong(), (wrong, *RIGHT))


@kind("an attribute twice, the last one wrong", Fate.WRONG_TYPE, weight=5)
def last_wrong(draw: Draw) -> Made:
    wrong: Header = draw.pick("last wrong", (("ce_type", b"another"), ("ce_specversion", b"2.0")))
    return Made(draw.wrong(), (*RIGHT, wrong))


@kind("another type, and no JSON", Fate.WRONG_TYPE, weight=5)
def both(draw: Draw) -> Made:
    return Made(draw.pick("no JSON", (b"{", b"", None, b"\xff")), (("ce_type", b"another"),))

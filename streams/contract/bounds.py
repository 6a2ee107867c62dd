"""Bounds of numbers, texts and lists, in two JSON schemas of the same type. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

_LEAST = (("minLength", 0), ("minItems", 0))
_MOST = ("maxLength", "maxItems")
_EXACT = ("pattern", "format", "patternProperties")


def bound_breaks(
    old: Mapping[str, Any], new: Mapping[str, Any], party: Literal["readers", "writers"]
) -> Iterator[str]:
    """For readers a bound may only become narrower, for writers only wider."""
    for name, was, now in _bounds(old, new):
        wider = now < was
        if now != was and wider == (party == "readers"):
            yield f"{name}: {_shown(name, was)} → {_shown(name, now)}"
    for name in _EXACT:
        had, has = old.get(name), new.get(name)
        if had != has and (had if party == "readers" else has) is not None:
            yield f"{name}: {had or 'none'} → {has or 'none'}"


def _bounds(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[float, bool], tuple[float, bool]]]:
    """(name, was, now), turned so that a lower one is the wider one."""
    infinite = float("inf")
    yield (
        "minimum",
        _tightest(old, "minimum", "exclusiveMinimum", 1),
        _tightest(new, "minimum", "exclusiveMinimum", 1),
    )
    yield (
        "maximum",
        _tightest(old, "maximum", "exclusiveMaximum", -1),
        _tightest(new, "maximum", "exclusiveMaximum", -1),
    )
    for name, none in _LEAST:
        yield name, (old.get(name, none), False), (new.get(name, none), False)
    for name in _MOST:
        yield name, (-old.get(name, infinite), False), (-new.get(name, infinite), False)


def _tightest(
    schema: Mapping[str, Any], inclusive: str, exclusive: str, sign: int
) -> tuple[float, bool]:
    """(bound times sign, whether the bound itself is out)."""
    found = [(-float("inf"), False)]
    if inclusive in schema:
        found.append((sign * schema[inclusive], False))
    if exclusive in schema:
        found.append((sign * schema[exclusive], True))
    return max(found)


def _shown(name: str, bound: tuple[float, bool]) -> str:
    turned, exclusive = bound
    if abs(turned) == float("inf"):
        return "none"
    value = -turned if name.startswith("max") else turned
    return f"{value}{' (exclusive)' if exclusive else ''}"

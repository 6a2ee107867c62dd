"""Which changes from one JSON schema to the next break somebody. Pure.

Who reads a topic is broken by what it never saw before: a field that is gone or may now be absent,
another type, a wider bound. Who writes to one is broken by what is asked of it: a field that is now
required, a narrower type or bound, another default. A new field breaks nobody, and neither does a
new word where one of several is written (readers are told to expect that); a word that is gone
breaks both. The subset of JSON Schema is that which pydantic writes, of types that do not contain
themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from streams.contract.bounds import bound_breaks

Schema = Mapping[str, Any]
Party = Literal["readers", "writers"]
_ANY_TYPE = frozenset(("null", "boolean", "integer", "number", "string", "array", "object"))


@dataclass(frozen=True, slots=True, order=True)
class Break:
    """``path`` leads to the place from the payload (``$``); ``party`` is whom it breaks."""

    path: str
    party: Party
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what} (breaks {self.party})"


@dataclass(frozen=True, slots=True)
class _Side:
    """A schema and the document in which its references lead somewhere."""

    schema: Schema
    document: Schema

    def at(self, schema: Schema | bool) -> _Side:
        return _Side({} if isinstance(schema, bool) else schema, self.document)

    def alternatives(self) -> list[_Side]:
        """Each with one type, or with none that is named; references are followed."""
        schema = self.schema
        while "$ref" in schema:
            found: Any = self.document
            for step in schema["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            schema = found
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return [a for part in schema[union] for a in self.at(part).alternatives()]
        types = schema.get("type")
        if isinstance(types, list):
            return [self.at({**schema, "type": one}) for one in types]
        return [self.at(schema)]

    @property
    def types(self) -> frozenset[str]:
        """What JSON types a value may have; an integer is a number too."""
        if "type" in self.schema:
            return frozenset((self.schema["type"],))
        if "const" in self.schema:
            return frozenset((_type_of(self.schema["const"]),))
        return _ANY_TYPE


def breaks(old: Schema, new: Schema, party: Party) -> list[Break]:
    """What in the step from ``old`` to ``new`` breaks that party; both are whole documents."""
    return sorted(set(_compare("$", _Side(old, old), _Side(new, new), party)))


def topic_breaks(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Break]:
    """The same for topics as ``topic_schemas`` describes them: payload, headers and key."""
    found: list[Break] = []
    for topic, was in old.items():
        now = new.get(topic)
        if now is None:
            found.append(Break(topic, "readers", "the topic is gone"))
            continue
        parties: list[Party] = ["readers"]
        if was["written_by"] == "anyone":
            parties.append("writers")
            if now["written_by"] != "anyone":
                found.append(Break(topic, "writers", "no longer open to others"))
        for part in ("payload", "headers", "key"):
            if was[part] is None:
                continue
            if now[part] is None:
                found.append(Break(f"{topic} {part}", "readers", "no longer described"))
                continue
            for party in parties:
                found += [
                    Break(f"{topic} {part} {b.path}", b.party, b.what)
                    for b in breaks(was[part], now[part], party)
                ]
    return sorted(set(found))


def _compare(path: str, old: _Side, new: _Side, party: Party) -> Iterator[Break]:
    """Whatever the giving side may write, the taking side must be able to take. For readers the
    givers are new and the takers old; for writers the other way round."""
    olds, news = old.alternatives(), new.alternatives()
    given, taken = (news, olds) if party == "readers" else (olds, news)
    for giver in given:
        candidates = [taker for taker in taken if _fits(giver, taker)]
        if not candidates:
            what = "may now be" if party == "readers" else "may no longer be"
            yield Break(path, party, f"{what} {_name(giver)}")
            continue
        tried = [
            list(_compare_one(path, *_in_order(giver, taker, party), party)) for taker in candidates
        ]
        yield from min(tried, key=len)
    yield from _words(path, olds, news, party)
    defaults = [side.schema["default"] for side in (old, new) if "default" in side.schema]
    if party == "writers" and len(defaults) == 2 and defaults[0] != defaults[1]:
        yield Break(path, party, "default: {!r} → {!r}".format(*defaults))


def _in_order(giver: _Side, taker: _Side, party: Party) -> tuple[_Side, _Side]:
    return (taker, giver) if party == "readers" else (giver, taker)


def _compare_one(path: str, old: _Side, new: _Side, party: Party) -> Iterator[Break]:
    for what in bound_breaks(old.schema, new.schema, party):
        yield Break(path, party, what)
    yield from _properties(path, old, new, party)
    if "items" in old.schema or "items" in new.schema:
        inner = old.at(old.schema.get("items", {})), new.at(new.schema.get("items", {}))
        yield from _compare(f"{path}[]", *inner, party)
    yield from _others(path, old, new, party)


def _properties(path: str, old: _Side, new: _Side, party: Party) -> Iterator[Break]:
    was, now = old.schema.get("properties", {}), new.schema.get("properties", {})
    had, has = set(old.schema.get("required", ())), set(new.schema.get("required", ()))
    for name in was:
        if name not in now:
            yield Break(f"{path}.{name}", party, "gone")
        else:
            yield from _compare(f"{path}.{name}", old.at(was[name]), new.at(now[name]), party)
    others = old.schema.get("additionalProperties")
    if isinstance(others, Mapping):  # a map; what is named now was one of its values
        for name in sorted(now.keys() - was.keys()):
            yield from _compare(f"{path}.{name}", old.at(others), new.at(now[name]), party)
    if party == "readers":
        for name in sorted(had - has):
            if name in now:
                yield Break(f"{path}.{name}", party, "may now be absent")
    else:
        for name in sorted(has - had):
            yield Break(f"{path}.{name}", party, "now required")


def _others(path: str, old: _Side, new: _Side, party: Party) -> Iterator[Break]:
    """The fields that no schema names: of a map, or what a closed object refuses."""
    was = old.schema.get("additionalProperties", True)
    now = new.schema.get("additionalProperties", True)
    given, taken = (now, was) if party == "readers" else (was, now)
    if given is False:
        return
    if taken is False:
        yield Break(path, party, "other fields " + ("refused" if party == "writers" else "come"))
    elif isinstance(was, Mapping) or isinstance(now, Mapping):
        yield from _compare(f"{path}.*", old.at(was), new.at(now), party)


def _words(path: str, olds: list[_Side], news: list[_Side], party: Party) -> Iterator[Break]:
    """Words that are gone, where one of several is written. Free text takes every word."""
    was, now = _listed(olds), _listed(news)
    if was is None or (now is None and party == "writers"):
        return
    if now is None:
        yield Break(path, party, "any word may now come")
        return
    for word in sorted(was - now):
        yield Break(path, party, f"{word} is gone")


def _listed(sides: list[_Side]) -> set[str] | None:
    """``None``: not a list of words. A null beside it is no word."""
    words: set[str] = set()
    for side in sides:
        if side.schema.get("type") == "null":
            continue
        if "enum" in side.schema:
            words |= {repr(value) for value in side.schema["enum"]}
        elif "const" in side.schema:
            words.add(repr(side.schema["const"]))
        else:
            return None
    return words or None


def _fits(giver: _Side, taker: _Side) -> bool:
    def covered(kind: str) -> bool:
        return kind in taker.types or (kind == "integer" and "number" in taker.types)

    return all(covered(kind) for kind in giver.types)


def _name(side: _Side) -> str:
    return "anything" if side.types == _ANY_TYPE else " or ".join(sorted(side.types))


def _type_of(value: object) -> str:
    if value is None:
        return "null"
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string")):
        if isinstance(value, kind):
            return name
    return "array" if isinstance(value, list) else "object"

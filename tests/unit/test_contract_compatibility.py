"""For each kind of change: whom it breaks, and whom it does not."""

from __future__ import annotations

import copy
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from streams.contract.compatibility import Break, Party, breaks, topic_breaks

Schema = dict[str, Any]

BASE: Schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 9},
        "count": {"type": "integer", "minimum": 0, "exclusiveMaximum": 100},
        "ratio": {"type": "number"},
        "kind": {"type": "string", "enum": ["a", "b"]},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/Part"}, "minItems": 1},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["name", "count", "ratio", "kind", "parts", "labels"],
    "$defs": {
        "Part": {
            "type": "object",
            "properties": {
                "ns": {"type": "integer"},
                "cost": {"type": "string", "format": "decimal"},
                "rows": {"type": "integer", "default": 1},
            },
            "required": ["ns", "cost"],
        }
    },
}


def changed(**places: object) -> Schema:
    """``a__b=value`` sets ``BASE['a']['b']``; ``None`` takes it away."""
    schema = copy.deepcopy(BASE)
    for place, value in places.items():
        *way, last = place.split("__")
        at = schema
        for step in way:
            at = at[step]
        if value is None:
            del at[last]
        else:
            at[last] = value
    return schema


def without(name: str) -> list[str]:
    return [field for field in BASE["required"] if field != name]


PROPERTIES = "properties__"
PART = "$defs__Part__"
CHANGES: dict[str, tuple[Schema, str | None, str | None]] = {
    # what changes: (the schema then, what readers are told, what writers are told)
    "a field is added, that may be absent": (
        changed(properties__new={"type": "integer"}),
        None,
        None,
    ),
    "a field is added, that must be there": (
        changed(properties__new={"type": "integer"}, required=[*BASE["required"], "new"]),
        None,
        "$.new: now required",
    ),
    "a field is gone": (
        changed(properties__name=None, required=without("name")),
        "$.name: gone",
        "$.name: gone",
    ),
    "a field may be absent": (
        changed(required=without("count")),
        "$.count: may now be absent",
        None,
    ),
    "a field that may be absent must be there": (
        changed(required=[*BASE["required"], "note"]),
        None,
        "$.note: now required",
    ),
    "a field may be null": (
        changed(properties__ratio={"anyOf": [{"type": "number"}, {"type": "null"}]}),
        "$.ratio: may now be null",
        None,
    ),
    "a field may no longer be null": (
        changed(properties__note={"type": "string", "default": None}),
        None,
        "$.note: may no longer be null",
    ),
    "an integer becomes a number": (
        changed(properties__count__type="number"),
        "$.count: may now be number",
        None,
    ),
    "a number becomes an integer": (
        changed(properties__ratio__type="integer"),
        None,
        "$.ratio: may no longer be number",
    ),
    "a text becomes a list": (
        changed(properties__name={"type": "array", "items": {"type": "string"}}),
        "$.name: may now be array",
        "$.name: may no longer be string",
    ),
    "a word is gone": (
        changed(properties__kind__enum=["a"]),
        "$.kind: 'b' is gone",
        "$.kind: 'b' is gone",
    ),
    "a word is added": (changed(properties__kind__enum=["a", "b", "c"]), None, None),
    "a word gets another name": (
        changed(properties__kind__enum=["a", "B"]),
        "$.kind: 'b' is gone",
        "$.kind: 'b' is gone",
    ),
    "one word alone is left": (
        changed(properties__kind={"type": "string", "const": "a"}),
        "$.kind: 'b' is gone",
        "$.kind: 'b' is gone",
    ),
    "words become free text": (
        changed(properties__kind={"type": "string"}),
        "$.kind: any word may now come",
        None,
    ),
    "a lower bound falls": (
        changed(properties__count__minimum=-5),
        "$.count: minimum: 0 → -5",
        None,
    ),
    "a lower bound rises": (
        changed(properties__count__minimum=1),
        None,
        "$.count: minimum: 0 → 1",
    ),
    "an upper bound rises": (
        changed(properties__count__exclusiveMaximum=101),
        "$.count: maximum: 100 (exclusive) → 101 (exclusive)",
        None,
    ),
    "an upper bound goes from exclusive to inclusive": (
        changed(properties__count__exclusiveMaximum=None, properties__count__maximum=100),
        "$.count: maximum: 100 (exclusive) → 100",
        None,
    ),
    "a text may be longer": (
        changed(properties__name__maxLength=None),
        "$.name: maxLength: 9 → none",
        None,
    ),
    "a text must be longer": (
        changed(properties__name__minLength=2),
        None,
        "$.name: minLength: 1 → 2",
    ),
    "a text gets a pattern": (
        changed(properties__name__pattern="^a"),
        None,
        "$.name: pattern: none → ^a",
    ),
    "a list may be empty": (
        changed(properties__parts__minItems=None),
        "$.parts: minItems: 1 → 0",
        None,
    ),
    "a field within a list is gone": (
        changed(**{PART + "properties__cost": None, PART + "required": ["ns"]}),
        "$.parts[].cost: gone",
        "$.parts[].cost: gone",
    ),
    "a text within a list is no longer a decimal": (
        changed(**{PART + "properties__cost__format": None}),
        "$.parts[].cost: format: decimal → none",
        None,
    ),
    "a default is another": (
        changed(**{PART + "properties__rows__default": 2}),
        None,
        "$.parts[].rows: default: 1 → 2",
    ),
    "a map holds something else": (
        changed(properties__labels__additionalProperties={"type": "integer"}),
        "$.labels.*: may now be integer",
        "$.labels.*: may no longer be string",
    ),
    "other fields are refused": (
        changed(additionalProperties=False),
        None,
        "$: other fields refused",
    ),
    "words for people change": (
        changed(description="another", properties__name__title="Another"),
        None,
        None,
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("party", ["readers", "writers"])
def test_a_change_is_told_to_whom_it_breaks_and_to_nobody_else(kind: str, party: Party) -> None:
    new, *told = CHANGES[kind]
    expected = told[0 if party == "readers" else 1]
    found = [f"{b.path}: {b.what}" for b in breaks(BASE, new, party)]
    assert found == ([] if expected is None else [expected])


@pytest.mark.parametrize("party", ["readers", "writers"])
def test_a_schema_does_not_break_itself(party: Party) -> None:
    assert breaks(BASE, BASE, party) == []


@pytest.mark.parametrize("kind", CHANGES)
def test_what_widens_for_one_party_narrows_for_the_other_on_the_way_back(kind: str) -> None:
    """But words, fields and defaults that are gone, and new ones, which are no matter of width."""
    new, *_ = CHANGES[kind]
    width = ("may ", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")

    def of_width(found: list[Break]) -> set[str]:
        return {b.path for b in found if b.what.startswith(width)} - {
            b.path for b in found if "absent" in b.what
        }

    assert of_width(breaks(BASE, new, "readers")) == of_width(breaks(new, BASE, "writers"))


def test_pydantics_own_schemas_are_understood() -> None:
    class Part(BaseModel):
        kind: Literal["a", "b"] | None
        ns: int = Field(ge=0, lt=2**53)

    class Old(BaseModel):
        parts: tuple[Part, ...]
        one: Part | None = None

    class NewPart(BaseModel):
        kind: Literal["a"] | None
        ns: int = Field(ge=0, lt=2**63)
        more: int = 0

    class New(BaseModel):
        parts: tuple[NewPart, ...]
        one: NewPart | None = None

    old, new = Old.model_json_schema(), New.model_json_schema()
    assert [str(b) for b in breaks(old, new, "readers")] == [
        f"$.{place}.{what} (breaks readers)"
        for place in ("one", "parts[]")
        for what in (
            "kind: 'b' is gone",
            f"ns: maximum: {2**53} (exclusive) → {2**63} (exclusive)",
        )
    ]
    assert [b.what for b in breaks(old, new, "writers")] == ["'b' is gone"] * 2


# --- topics --------------------------------------------------------------------------------------


def topic(**changes: object) -> Schema:
    values = {"written_by": "us", "key": {"type": "string"}, "headers": {}, "payload": BASE}
    return values | changes


WIDER = changed(required=without("count"))
NARROWER = changed(required=[*BASE["required"], "note"])


def test_a_topic_that_is_gone_breaks_and_a_new_one_does_not() -> None:
    assert [b.what for b in topic_breaks({"t": topic()}, {})] == ["the topic is gone"]
    assert topic_breaks({}, {"t": topic()}) == []


def test_what_we_alone_write_may_promise_more_and_what_anyone_writes_may_do_neither() -> None:
    ours, anyones = {"t": topic()}, {"t": topic(written_by="anyone")}
    assert topic_breaks(ours, {"t": topic(payload=NARROWER)}) == []
    assert len(topic_breaks(ours, {"t": topic(payload=WIDER)})) == 1
    for payload in (NARROWER, WIDER):
        assert len(topic_breaks(anyones, {"t": topic(written_by="anyone", payload=payload)})) == 1
    assert [b.party for b in topic_breaks(anyones, ours)] == ["writers"]


def test_keys_and_headers_are_held_to_as_well() -> None:
    old = {"t": topic(key={"type": "string", "pattern": "^a/b$"}, headers=BASE)}
    assert [b.path for b in topic_breaks(old, {"t": topic(key=None, headers=WIDER)})] == [
        "t headers $.count",
        "t key",
    ]
    assert [b.path for b in topic_breaks(old, {"t": topic(headers=BASE)})] == ["t key $"]

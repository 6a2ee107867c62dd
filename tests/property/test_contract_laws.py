"""What the compatibility check lets pass is read by old readers, and taken from old writers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # has no stubs
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.contract.compatibility import breaks

Schema = dict[str, Any]
NAMES = ("a", "b", "c")


def bounded(schema: Schema, low: str, high: str) -> st.SearchStrategy[Schema]:
    bounds = st.fixed_dictionaries({}, optional={low: st.integers(0, 1), high: st.integers(3, 5)})
    return bounds.map(lambda given: {**schema, **given})


def objects(of: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    properties = st.dictionaries(st.sampled_from(NAMES), of, max_size=3)
    return properties.flatmap(
        lambda drawn: st.sets(st.sampled_from(sorted(drawn)) if drawn else st.nothing()).map(
            lambda required: {"type": "object", "properties": drawn, "required": sorted(required)}
        )
    )


leaves = st.one_of(
    bounded({"type": "integer"}, "minimum", "maximum"),
    bounded({"type": "integer"}, "exclusiveMinimum", "exclusiveMaximum"),
    st.just({"type": "number"}),
    bounded({"type": "string"}, "minLength", "maxLength"),
    st.just({"type": "null"}),
)


def nested(of: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.one_of(
        objects(of),
        of.flatmap(lambda item: bounded({"type": "array", "items": item}, "minItems", "maxItems")),
        of.map(lambda value: {"type": "object", "additionalProperties": value}),
        st.tuples(of, of).map(lambda both: {"anyOf": list(both)}),
    )


schemas = st.recursive(leaves, nested, max_leaves=5)


def narrower(schema: Schema) -> st.SearchStrategy[Schema]:
    """The same with something added, so that pairs that fit are not rare."""
    if schema.get("type") != "object" or "properties" not in schema:
        return st.just(schema)
    return leaves.map(
        lambda new: {
            **schema,
            "properties": {"new": new, **schema["properties"]},
            "required": sorted(schema["properties"]),
        }
    )


pairs = st.one_of(
    st.tuples(schemas, schemas),
    objects(schemas).flatmap(lambda s: st.tuples(st.just(s), narrower(s))),
    objects(schemas).flatmap(lambda s: st.tuples(narrower(s), st.just(s))),
)


def instances(schema: Schema) -> st.SearchStrategy[Any]:  # noqa: PLR0911  # one a type
    """Values that the schema describes, without fields that it does not name."""
    if "anyOf" in schema:
        return st.one_of([instances(part) for part in schema["anyOf"]])
    kind = schema["type"]
    if kind == "null":
        return st.none()
    if kind == "number":
        return st.floats(-9, 9)
    if kind == "integer":
        low = max(schema.get("minimum", -9), schema.get("exclusiveMinimum", -9) + 1)
        high = min(schema.get("maximum", 9), schema.get("exclusiveMaximum", 9) - 1)
        return st.integers(low, high)
    if kind == "string":
        return st.text(
            "x", min_size=schema.get("minLength", 0), max_size=schema.get("maxLength", 9)
        )
    if kind == "array":
        return st.lists(
            instances(schema["items"]),
            min_size=schema.get("minItems", 0),
            max_size=schema.get("maxItems", 5),
        )
    if "additionalProperties" in schema:
        return st.dictionaries(st.sampled_from(NAMES), instances(schema["additionalProperties"]))
    required = {n: instances(s) for n, s in schema["properties"].items() if n in schema["required"]}
    optional = {n: instances(s) for n, s in schema["properties"].items() if n not in required}
    return st.fixed_dictionaries(required, optional=optional)


@settings(max_examples=400, deadline=None)
@given(pairs, st.data())
def test_what_breaks_no_reader_is_read_by_old_readers(
    pair: tuple[Schema, Schema], data: st.DataObject
) -> None:
    old, new = pair
    if not breaks(old, new, "readers"):
        jsonschema.Draft202012Validator(old).validate(data.draw(instances(new)))


@settings(max_examples=400, deadline=None)
@given(pairs, st.data())
def test_what_breaks_no_writer_is_taken_from_old_writers(
    pair: tuple[Schema, Schema], data: st.DataObject
) -> None:
    old, new = pair
    if not breaks(old, new, "writers"):
        jsonschema.Draft202012Validator(new).validate(data.draw(instances(old)))


@given(schemas)
def test_no_schema_breaks_itself(schema: Schema) -> None:
    assert breaks(schema, schema, "readers") == breaks(schema, schema, "writers") == []


def test_the_laws_are_tried_on_pairs_that_pass_and_on_pairs_that_do_not() -> None:
    seen: Counter[bool] = Counter()

    @settings(max_examples=200, database=None, derandomize=True)
    @given(pairs)
    def look(pair: tuple[Schema, Schema]) -> None:
        seen[bool(breaks(*pair, "readers"))] += 1

    look()
    assert min(seen[True], seen[False]) > 20, seen

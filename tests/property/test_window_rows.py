"""Rows of windows in columns against one row as an object."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.additions import TALLY
from metering.costs import WindowRow
from metering.money import ATTO_PER_USD
from metering.priced import UNKNOWN
from metering.window_rows import Told, WindowRows, values_of
from metering.window_sums import MOST_USD, words_of
from metering.windows import WindowKey
from sinks.clickhouse.window_table import window_table

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6) | st.sampled_from(
    ['"', "\\", "%d", "a/b", "\0"]
)
PRICED = ("priced_input_tokens", "priced_output_tokens")
sums = st.one_of(st.integers(0, 5), st.integers(0, 10**12), st.integers(0, 2**64 - 1))
costs = st.one_of(sums, st.integers(0, 10**24), st.integers(0, MOST_USD * ATTO_PER_USD - 1))
FIELDS = (*WindowRow.model_fields, *WindowRow.model_computed_fields)
MONEY = {name for name in FIELDS if "usd" in name}


@st.composite
def told(draw: st.DrawFn) -> Told:
    cohorts = draw(st.lists(st.tuples(names, names, names), min_size=1, max_size=4))
    values = [[draw(costs if name.endswith("_atto") else sums) for name in TALLY] for _ in cohorts]
    for row in values:
        for name in PRICED:
            if draw(st.booleans()) and draw(st.booleans()):
                row[TALLY.index(name)] = UNKNOWN + draw(sums)
    seconds = draw(st.sampled_from([10, 60, 3600, 86_400]))
    key = WindowKey(seconds * draw(st.integers(0, 20_000)), seconds)
    words = words_of([np.array(column, object) for column in zip(*values, strict=True)])
    return Told(key, draw(st.booleans()), draw(st.integers(0, 2**40)), cohorts, words)


@given(rows=st.lists(told(), min_size=1, max_size=3))
def test_their_json_is_that_of_the_objects(rows: list[Told]) -> None:
    found = [json.loads(value) for value in values_of(WindowRows(rows))]
    expected = [json.loads(row.model_dump_json()) for row in WindowRows(rows)]
    assert [_plain(row) for row in found] == [_plain(row) for row in expected]
    texts = [row[name] for row in found for name in MONEY if row[name] is not None]
    assert all(len(text.partition(".")[2]) == 18 for text in texts)
    assert WindowRows.of(list(WindowRows(rows))).columns.counts.keys() == set(TALLY) - {
        name for name in TALLY if name.endswith("_atto")
    }
    assert list(WindowRows.of(list(WindowRows(rows)))) == list(WindowRows(rows))


@settings(deadline=None)  # what comes first loads much
@given(rows=st.lists(told(), min_size=1, max_size=3))
def test_their_table_has_what_the_objects_have(rows: list[Told]) -> None:
    found = window_table(WindowRows(rows)).to_pylist()
    for row, expected in zip(found, WindowRows(rows), strict=True):
        assert row.pop("window_start").timestamp() * 1000 == expected.window_start_ms
        assert row.pop("version") == 2 * expected.counted_to + expected.final
        assert row == {name: getattr(expected, name) for name in row}
        assert row.keys() == set(FIELDS) - {"window_start_ms"}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: Decimal(value) if name in MONEY and value is not None else value
        for name, value in row.items()
    }

"""The README's queries, which read sums, answer as every single line does, whatever was inserted:
rows again, provisional rows, corrections of windows long final, parts that nothing has merged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from benchmarks.sql.fill import (
    FRESH_PARTS,
    Month,
    Told,
    add_lines,
    fill,
    fresh_parts,
    tell_windows,
)
from benchmarks.sql.questions import questions, readme_queries
from sinks.clickhouse.connection import Client, connect
from sinks.clickhouse.schema import migrate

if TYPE_CHECKING:
    from conftest import ClickHouse

DAY_S = 86_400
MONTH = Month(lines=8_000, begin_s=20_605 * DAY_S, fresh_lines=640)
ASKED = questions(MONTH.end_s)


@pytest.fixture(scope="module")
def client(address: ClickHouse) -> Iterator[Client]:
    """A database of this file's own, in which nothing merges by itself."""
    target = address.target(f"sums_{uuid4().hex[:12]}")
    migrate(target)
    with connect(target) as connected:
        columns = connected.query("SELECT * FROM cost_windows LIMIT 0").column_names
        assert "priced_output_tokens" in columns, "migration 0007 adds the sums of priced requests"
        for table in ("cost_request_lines", "cost_window_rows"):
            connected.command(f"SYSTEM STOP MERGES {table}")
        fill(connected, MONTH, lambda _: None)
        yield connected
        connected.command(f"DROP DATABASE {target.database}")


def rows(client: Client, sql: str) -> list[tuple[object, ...]]:
    return sorted((tuple(row) for row in client.query(sql).result_rows), key=str)


def assert_equal_to_the_lines(client: Client) -> None:
    for question in ASKED:
        found = rows(client, question.fast)
        assert found, question.name
        if question.plain is not None:
            assert found == rows(client, question.plain), question.name


def parts_of_windows(client: Client) -> int:
    return int(
        client.query(
            "SELECT count() FROM system.parts WHERE active AND database = currentDatabase() "
            "AND table = 'cost_window_rows'"
        ).result_rows[0][0]
    )


def fresh(client: Client) -> None:
    before = parts_of_windows(client)
    list(fresh_parts(client, MONTH))
    assert parts_of_windows(client) >= before + FRESH_PARTS


def older_rows_last(client: Client) -> None:
    """A worker that was slow inserts rows that another worker has replaced since."""
    tell_windows(client, Told(MONTH.end_s - DAY_S, MONTH.end_s, counted_to=10_000))
    client.command(
        "INSERT INTO cost_window_rows SELECT * REPLACE (counted_to - 1 AS counted_to, "
        "version - 2 AS version, cost_usd / 2 AS cost_usd, requests + 1 AS requests, "
        "output_cost_usd * 3 AS output_cost_usd) FROM cost_window_rows WHERE counted_to = 10000"
    )


def correction_of_an_old_day(client: Client) -> None:
    before = rows(client, ASKED[0].fast)
    late = Month(MONTH.lines, MONTH.begin_s, MONTH.fresh_lines, seed=2)
    add_lines(client, late, first=2_000, count=200)
    day_s = MONTH.begin_s + 2_000 * 30 // MONTH.lines * DAY_S
    tell_windows(client, Told(day_s, day_s + 2 * DAY_S, counted_to=20_000))
    assert rows(client, ASKED[0].fast) != before


def merged(client: Client) -> None:
    client.command("SYSTEM START MERGES cost_window_rows")
    client.command("OPTIMIZE TABLE cost_window_rows FINAL")
    assert parts_of_windows(client) <= 2


def test_sums_are_those_of_the_lines_after_every_kind_of_insert(client: Client) -> None:
    """Provisional rows, the same ones again, replaced ones late, corrections, and merges."""
    assert_equal_to_the_lines(client)
    for happens in (fresh, fresh, older_rows_last, correction_of_an_old_day, merged):
        happens(client)
        assert_equal_to_the_lines(client)


def test_what_has_no_price_costs_nothing_known_and_is_in_no_denominator(client: Client) -> None:
    told = {(row[0], row[1]): row[2] for row in rows(client, ASKED[0].fast)}
    unpriced = {tenant for (tenant, _), usd in told.items() if usd is None}
    assert unpriced == {"tenant-23"}
    mixed = client.query(
        "SELECT countIf(unpriced_requests BETWEEN 1 AND requests - 1) FROM cost_windows"
    ).result_rows[0][0]
    assert mixed


def test_the_readmes_queries_read_no_single_lines() -> None:
    assert not [query for query in readme_queries() if "cost_requests" in query]


def test_clickhouse_is_told_to_merge_the_parts_of_windows_that_have_aged(client: Client) -> None:
    made = str(client.command("SHOW CREATE TABLE cost_window_rows"))
    assert "min_age_to_force_merge_seconds = 21600" in made

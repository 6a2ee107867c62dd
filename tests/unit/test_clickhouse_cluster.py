"""Statements of migrations, rendered for a cluster."""

from __future__ import annotations

import pytest

from metering.errors import MeteringError
from sinks.clickhouse.cluster import DATABASE, rendered
from sinks.clickhouse.schema import migrations
from sinks.clickhouse.statements import script

D = DATABASE


def test_a_table_becomes_a_replicated_one_and_one_that_spreads() -> None:
    statement = (
        f"CREATE TABLE IF NOT EXISTS {D}.cost_window_rows\n"
        "(\n    tenant String COMMENT 'a (b)'\n)\n"
        "ENGINE = ReplacingMergeTree(version)\nPARTITION BY toYYYYMM(day)\nORDER BY (tenant, model)"
    )
    assert rendered(statement, "c") == [
        f"CREATE TABLE IF NOT EXISTS {D}.cost_window_rows_local ON CLUSTER c\n"
        "(\n    tenant String COMMENT 'a (b)'\n)\n"
        "ENGINE = ReplicatedReplacingMergeTree("
        f"'/clickhouse/tables/{{shard}}/{D}/cost_window_rows', '{{replica}}', version)\n"
        "PARTITION BY toYYYYMM(day)\nORDER BY (tenant, model)",
        f"CREATE TABLE IF NOT EXISTS {D}.cost_window_rows ON CLUSTER c "
        f"AS {D}.cost_window_rows_local\n"
        f"ENGINE = Distributed(c, {D}, cost_window_rows_local, cityHash64(tenant, model))",
    ]


def test_a_changed_sorting_key_is_changed_where_the_rows_are_and_columns_in_both() -> None:
    statement = (
        f"ALTER TABLE {D}.cost_window_rows\n"
        "    ADD COLUMN IF NOT EXISTS region LowCardinality(String) DEFAULT '' "
        "COMMENT 'a, b' AFTER model,\n"
        "    MODIFY ORDER BY (window_seconds, window_start, tenant, model, region)"
    )
    column = (
        "    ADD COLUMN IF NOT EXISTS region LowCardinality(String) DEFAULT '' "
        "COMMENT 'a, b' AFTER model"
    )
    assert rendered(statement, "c") == [
        f"ALTER TABLE {D}.cost_window_rows_local ON CLUSTER c\n{column},\n"
        "    MODIFY ORDER BY (window_seconds, window_start, tenant, model, region)",
        f"ALTER TABLE {D}.cost_window_rows ON CLUSTER c\n{column}",
    ]


def test_what_is_about_storage_alone_leaves_the_spreading_table_as_it_is() -> None:
    statement = f"ALTER TABLE {D}.cost_window_rows MODIFY TTL window_start + INTERVAL 2 YEAR"
    assert [s.split("\n")[0] for s in rendered(statement, "c")] == [
        f"ALTER TABLE {D}.cost_window_rows_local ON CLUSTER c"
    ]


@pytest.mark.parametrize("how", ["VIEW IF NOT EXISTS", "OR REPLACE VIEW"])
def test_a_view_reads_the_spreading_table_with_final(how: str) -> None:
    select = f"SELECT * EXCEPT (version) FROM {D}.cost_window_rows FINAL"
    assert rendered(f"CREATE {how} {D}.cost_windows AS\n{select}", "c") == [
        f"CREATE {how} {D}.cost_windows ON CLUSTER c AS\n{select}"
    ]


@pytest.mark.parametrize(
    "statement",
    [
        f"DROP TABLE {D}.cost_window_rows",
        f"INSERT INTO {D}.a SELECT * FROM {D}.b",
        f"CREATE MATERIALIZED VIEW {D}.a TO {D}.b AS SELECT 1",
        f"CREATE TABLE IF NOT EXISTS {D}.cost_window_rows (a Int8) ENGINE = Memory",
        f"ALTER TABLE {D}.cost_window_rows DELETE WHERE 1",
        f"ALTER TABLE {D}.cost_window_rows ADD COLUMN a Int8, DROP PARTITION 202601",
    ],
)
def test_what_is_not_known_is_refused_and_not_guessed(statement: str) -> None:
    with pytest.raises(MeteringError, match="not known how to do on a cluster"):
        rendered(statement, "c")


def test_a_table_without_a_sharding_key_is_named() -> None:
    statement = (
        f"CREATE TABLE IF NOT EXISTS {D}.new_rows (a Int8)\n"
        "ENGINE = ReplacingMergeTree\nPARTITION BY a\nORDER BY (a)"
    )
    with pytest.raises(MeteringError, match="new_rows"):
        rendered(statement, "c")


def test_the_script_has_every_migration_and_its_note() -> None:
    text = script("c", "costs")
    assert DATABASE not in text
    for name in migrations():
        assert f"INSERT INTO costs.migrations (name) VALUES ('{name}');" in text
    assert text.index("CREATE DATABASE") < text.index("costs.migrations ON CLUSTER c")

"""The migrations on a cluster: each statement is one that ClickHouse understands, and what makes a
repeated write the same write holds on several shards too.

There is no ClickHouse Keeper here. So the statements are parsed as they are; and what needs no
Keeper, which is all but ``ON CLUSTER`` and replication, runs on a cluster of one shard.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiokafka.partitioner import murmur2

from metering.costs import WindowRow
from metering.errors import MeteringError
from metering.lines import CostLines
from metering.prices import parse_price_book
from metering.pricing import price_batch
from metering.usage import UsageBatch
from metering.window_rows import WindowRows
from sinks.clickhouse import cluster as cluster_form
from sinks.clickhouse import schema
from sinks.clickhouse.cluster import SHARDED_BY, preparation
from sinks.clickhouse.connection import ClickHouseTarget
from sinks.clickhouse.queries import ClickHouseReader
from sinks.clickhouse.schema import migrate, migrations, statements_of
from sinks.clickhouse.writer import ClickHouseWriter
from tests.contract.conftest import ClickHouse, EmbeddedProcess

NAME = "meter"
BOOK = parse_price_book(
    '[[gpu_hour]]\nid = "p"\naccelerator = "cpu"\nregion = "*"\n'
    'usd_per_gpu_hour = "3"\neffective_from = 2020-01-01T00:00:00Z\n',
    "book",
)
ONE_SHARD = """<clickhouse>
<tcp_port>9000</tcp_port>
<remote_servers><meter><shard><internal_replication>true</internal_replication>
<replica><host>127.0.0.1</host><port>9000</port></replica></shard></meter></remote_servers>
</clickhouse>"""

every_file = pytest.mark.parametrize("file", migrations())


def sql(file: str) -> list[str]:
    return [s.replace(cluster_form.DATABASE, "meter") for s in statements_of(file, NAME)]


def sorting_keys() -> dict[str, set[str]]:
    """Per table the columns of its sorting key, after all migrations."""
    keys: dict[str, set[str]] = {}
    for file in migrations():
        for statement in statements_of(file, ""):
            name = re.search(r"TABLE (?:IF NOT EXISTS )?\S+\.(\w+)", statement)
            key = re.search(r"ORDER BY \(([^()]*)\)\s*(?:,|\Z|SETTINGS)", statement)
            if name and key and "VIEW" not in statement.split("(")[0]:
                keys[name[1]] = {column.strip() for column in key[1].split(",")}
    return keys


@every_file
def test_every_statement_is_one_that_clickhouse_understands(file: str, address: ClickHouse) -> None:
    for statement in sql(file):
        assert address.post(f"EXPLAIN AST {statement}").status == 200, statement
        assert " ON CLUSTER meter" in statement


def test_what_comes_before_the_migrations_is_understood_too(address: ClickHouse) -> None:
    for statement in preparation(NAME):
        explained = f"EXPLAIN AST {statement.replace(cluster_form.DATABASE, 'meter')}"
        assert address.post(explained).status == 200, statement


def test_every_table_is_sharded_by_columns_of_its_sorting_key_alone() -> None:
    keys = sorting_keys()
    assert set(keys) == set(SHARDED_BY)
    for table, expression in SHARDED_BY.items():
        arguments = re.fullmatch(r"\w+\(([\w, ]+)\)", expression)
        assert arguments is not None
        assert {a.strip() for a in arguments[1].split(",")} <= keys[table], table


@pytest.mark.parametrize("source", ["a", "host-1/5c1f7a3e/4711/llama_0", "größer"])
def test_a_line_is_sharded_as_kafka_partitions_its_source(source: str, address: ClickHouse) -> None:
    hashed = int(address.value(f"SELECT kafkaMurmurHash('{source}')"))
    assert hashed == murmur2(source.encode()) & 0x7FFFFFFF


def without_keeper(function: Callable[..., list[str]]) -> Callable[..., list[str]]:
    def plain(statement: str) -> str:
        statement = re.sub(r" ON CLUSTER \w+", "", statement)
        statement = re.sub(r"Replicated(\w*MergeTree)\('[^']*', '[^']*'(?:, )?", r"\1(", statement)
        return statement.replace("MergeTree()", "MergeTree")

    return lambda *args: [plain(statement) for statement in function(*args)]


@pytest.fixture
def one_shard(
    tmp_path: Path, start_embedded: Callable[..., EmbeddedProcess], monkeypatch: pytest.MonkeyPatch
) -> ClickHouseTarget:
    """A cluster of one shard, and statements without what asks for a Keeper."""
    config = tmp_path / "cluster.xml"
    config.write_text(ONE_SHARD)
    process = start_embedded(tmp_path / f"data?config-file={quote(str(config), safe='')}")

    for name in ("rendered", "preparation"):
        monkeypatch.setattr(schema, name, without_keeper(getattr(cluster_form, name)))
    return ClickHouseTarget(process.server.url, database="meter", cluster=NAME)


def window(counted_to: int, requests: int, **changes: Any) -> WindowRow:
    values: dict[str, Any] = {name: 0 for name in WindowRow.model_fields}
    values |= {"window_start_ms": 1_780_000_000_000, "window_seconds": 10, "tenant": "acme"}
    values |= {"model": "tiny", "final": False, "counted_to": counted_to, "requests": requests}
    if "region" in WindowRow.model_fields:
        values["region"] = "eu"
    return WindowRow(**{**values, **changes})


def test_writes_and_reads_through_the_distributed_tables_and_a_repetition_changes_nothing(
    one_shard: ClickHouseTarget, batch_of: Callable[..., UsageBatch]
) -> None:
    assert migrate(one_shard) == migrations()
    assert migrate(one_shard) == []
    writer, reader = ClickHouseWriter(one_shard), ClickHouseReader(one_shard)
    lines = CostLines.of(price_batch(batch_of(0), BOOK))
    for _ in range(2):
        writer.write_lines(lines)
        writer.write_windows(WindowRows.of([window(7, 3), window(9, 5)]))
    writer.write_windows(WindowRows.of([window(8, 4)]))
    assert reader.stored("").requests == lines.count
    assert reader.rows("SELECT requests, counted_to FROM cost_windows") == [(5, 9)]
    engines = dict(reader.rows("SELECT name, engine FROM system.tables WHERE database = 'meter'"))
    for table in SHARDED_BY:
        assert engines[table] == "Distributed"
        assert engines[f"{table}_local"] == "ReplacingMergeTree"
    told = (
        "SELECT name, type, default_expression, comment "
        "FROM system.columns WHERE table = {t:String} ORDER BY position"
    )
    for table in SHARDED_BY:
        passed, kept = (reader.rows(told, {"t": t}) for t in (table, f"{table}_local"))
        assert passed == kept, table
    reader.close()
    writer.close()


def test_a_repeated_migration_is_taken_too(one_shard: ClickHouseTarget) -> None:
    migrate(one_shard)
    reader = ClickHouseReader(one_shard)
    reader.raw("TRUNCATE TABLE migrations", "TSV")
    reader.close()
    assert migrate(one_shard) == migrations()


@pytest.mark.parametrize("name", ["a-b", "a b", "a'", "1a"])
def test_a_cluster_whose_name_could_be_anything_is_refused(name: str) -> None:
    with pytest.raises(MeteringError, match="cluster name"):
        migrate(ClickHouseTarget("http://127.0.0.1:1", cluster=name))

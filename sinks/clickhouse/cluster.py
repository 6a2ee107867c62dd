"""The migrations as a cluster wants them: the same files, each statement rendered anew.

A table becomes two. ``NAME_local`` on every node has the rows of its shard, and replicates them
within the shard; ``NAME`` spreads over the shards what is written and asks all of them what is
read. So whoever writes or reads names the same tables and views as on one server.

``FINAL`` removes repetitions within a shard only. It is right because every row that replaces
another one has that row's sorting key, and a table is sharded by columns of its sorting key alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from metering.errors import MeteringError

DATABASE = "{database:Identifier}"
"""Where the database's name goes in a migration."""

SHARDED_BY = {
    # As Kafka's partitioner has it for the key of the usage topic: where the count of partitions is
    # a multiple of the count of shards, all lines of a partition are one shard's, and an insert is
    # one part, however many shards there are.
    "cost_request_lines": "kafkaMurmurHash(source)",
    "cost_window_rows": "cityHash64(tenant, model)",
    "cost_anomaly_rows": "cityHash64(tenant, model)",
    "capacity_device_beats": "cityHash64(host)",
    "capacity_instance_beats": "cityHash64(host)",
    "capacity_model_beats": "cityHash64(host)",
    "reconciliation_rows": "cityHash64(boot_id)",
}

SETTINGS: dict[str, str | int] = {
    # An insert is answered when the shard has it, not when this node has noted to send it on.
    "distributed_foreground_insert": 1,
    # And when most replicas have it: one that is lost for good takes nothing with it.
    "insert_quorum": "auto",
}
"""What every connection to a cluster says."""

_NAME = re.escape(DATABASE) + r"\.(?P<name>\w+)"
_TABLE = re.compile(
    rf"CREATE TABLE IF NOT EXISTS {_NAME}\s*(?P<columns>\(.*\))\s*"
    r"ENGINE = ReplacingMergeTree(?:\((?P<version>\w+)\))?\s(?P<rest>\s*PARTITION BY .*)",
    re.DOTALL,
)
_ALTER = re.compile(rf"ALTER TABLE {_NAME}\s+(?P<actions>.*)", re.DOTALL)
_VIEW = re.compile(
    rf"CREATE (?P<how>VIEW IF NOT EXISTS|OR REPLACE VIEW) {_NAME} AS\s(?P<select>.*)", re.DOTALL
)
_OF_COLUMNS = re.compile(r"(ADD|DROP|MODIFY|RENAME|COMMENT) COLUMN\b")
_OF_STORAGE = re.compile(r"(MODIFY (ORDER BY|TTL|SETTING)|(ADD|DROP|MATERIALIZE) INDEX)\b")
_PIECE = re.compile(r"'(?:[^'\\]|\\.|'')*'|[(),]|[^'(),]+")


def rendered(statement: str, cluster: str) -> list[str]:
    """What one statement of a migration is on a cluster, in order.

    Raises:
        MeteringError: it is none of the statements that are known here, or of a table that has no
            sharding key yet.
    """
    if match := _TABLE.fullmatch(statement):
        return _table(match, cluster)
    if match := _ALTER.fullmatch(statement):
        return _alter(match, cluster)
    if match := _VIEW.fullmatch(statement):
        name = f"{DATABASE}.{match['name']}"
        return [f"CREATE {match['how']} {name} ON CLUSTER {cluster} AS\n{match['select']}"]
    raise MeteringError(f"not known how to do on a cluster: {_beginning(statement)}")


def preparation(cluster: str) -> list[str]:
    """The database, and the table that notes which migrations are applied: one table, a replica of
    it on every node of every shard."""
    path = f"/clickhouse/tables/all/{DATABASE}/migrations"
    return [
        f"CREATE DATABASE IF NOT EXISTS {DATABASE} ON CLUSTER {cluster}",
        f"CREATE TABLE IF NOT EXISTS {DATABASE}.migrations ON CLUSTER {cluster} "
        "(name String, applied DateTime DEFAULT now()) "
        f"ENGINE = ReplicatedMergeTree('{path}', '{{shard}}-{{replica}}') ORDER BY name",
    ]


def _table(match: re.Match[str], cluster: str) -> list[str]:
    name = match["name"]
    if name not in SHARDED_BY:
        raise MeteringError(f"table {name}: no sharding key in {__name__}.SHARDED_BY")
    path = f"/clickhouse/tables/{{shard}}/{DATABASE}/{name}"
    version = "" if match["version"] is None else f", {match['version']}"
    return [
        f"CREATE TABLE IF NOT EXISTS {DATABASE}.{name}_local ON CLUSTER {cluster}\n"
        f"{match['columns']}\n"
        f"ENGINE = ReplicatedReplacingMergeTree('{path}', '{{replica}}'{version})\n"
        f"{match['rest'].strip()}",
        f"CREATE TABLE IF NOT EXISTS {DATABASE}.{name} ON CLUSTER {cluster} "
        f"AS {DATABASE}.{name}_local\n"
        f"ENGINE = Distributed({cluster}, {DATABASE}, {name}_local, {SHARDED_BY[name]})",
    ]


def _alter(match: re.Match[str], cluster: str) -> list[str]:
    """Where the rows are, all of it; where they are only passed on, what is about columns."""
    name = f"{DATABASE}.{match['name']}"
    actions = list(_split(match["actions"]))
    for action in actions:
        if not _OF_COLUMNS.match(action) and not _OF_STORAGE.match(action):
            raise MeteringError(f"not known how to do on a cluster: {_beginning(action)}")
    altered = [f"ALTER TABLE {name}_local ON CLUSTER {cluster}\n    " + ",\n    ".join(actions)]
    if of_columns := [action for action in actions if _OF_COLUMNS.match(action)]:
        altered.append(
            f"ALTER TABLE {name} ON CLUSTER {cluster}\n    " + ",\n    ".join(of_columns)
        )
    return altered


def _split(actions: str) -> Iterator[str]:
    """At the commas that are in no parentheses and no quotes."""
    depth, part = 0, ""
    for piece in _PIECE.findall(actions):
        depth += (piece == "(") - (piece == ")")
        if piece == "," and depth == 0:
            yield part.strip()
            part = ""
        else:
            part += piece
    yield part.strip()


def _beginning(statement: str) -> str:
    return " ".join(statement.split())[:80]

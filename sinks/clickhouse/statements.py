"""``python -m sinks.clickhouse.statements CLUSTER [DATABASE]``: the migrations as a cluster gets
them, for whoever lets nobody but an administrator make tables."""

from __future__ import annotations

import sys

from sinks.clickhouse.cluster import DATABASE, preparation
from sinks.clickhouse.schema import migrations, statements_of


def script(cluster: str, database: str = "meter") -> str:
    """All statements in order, each ended by a semicolon; what is applied is noted as well."""
    statements = preparation(cluster)
    for name in migrations():
        statements += statements_of(name, cluster)
        statements.append(f"INSERT INTO {DATABASE}.migrations (name) VALUES ('{name}')")  # noqa: S608  # a file of the package
    return "".join(f"{one.replace(DATABASE, database)};\n\n" for one in statements)


if __name__ == "__main__":
    print(script(*sys.argv[1:]), end="")

"""From settings to what a sink wants to know."""

from __future__ import annotations

from sinks.clickhouse.connection import ClickHouseTarget
from streams.settings import Settings


def clickhouse_target(settings: Settings) -> ClickHouseTarget:
    return ClickHouseTarget(
        settings.clickhouse,
        settings.clickhouse_user,
        settings.clickhouse_password.get_secret_value(),
        settings.clickhouse_database,
        settings.clickhouse_cluster,
    )

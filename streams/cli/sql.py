"""``meter sql``."""

from __future__ import annotations

from pathlib import Path

import click

from metering.errors import SinkUnavailable
from sinks.clickhouse.queries import ClickHouseReader
from streams.cli.common import dir_option, explain_absence, json_option, running_settings
from streams.targets import clickhouse_target


@click.command(short_help="Ask ClickHouse anything.")
@click.argument("query")
@dir_option()
@click.option("--clickhouse", metavar="URL", help="Ask this ClickHouse.")
@click.option("--format", "output_format", metavar="FORMAT", help="Any of ClickHouse's.")
@json_option
def sql(
    query: str, folder: Path, clickhouse: str | None, output_format: str | None, as_json: bool
) -> None:
    """Ask ClickHouse. The views are cost_requests, cost_windows and cost_anomalies.

    \b
    meter sql "SELECT tenant, sum(cost_usd) FROM cost_requests GROUP BY tenant"
    """
    wanted = output_format or ("JSON" if as_json else "PrettyCompactMonoBlock")
    settings = running_settings(folder, clickhouse=clickhouse)
    try:
        reader = ClickHouseReader(clickhouse_target(settings))
        answer = reader.raw(query, wanted)
        reader.close()
    except SinkUnavailable as exc:
        raise explain_absence(folder, exc) from exc
    click.echo(answer, nl=False)

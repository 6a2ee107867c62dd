"""``meter sql``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metering.errors import QueryFailed, SinkUnavailable
from streams.cli.common import dir_option, explain_absence, json_option, running_settings

if TYPE_CHECKING:
    from sinks.clickhouse.queries import ClickHouseReader

TABLE, HEADER_ONLY = "PrettyCompactMonoBlock", "TSVWithNames"
MOST_CHARACTERS = 600
_FROM_DRIVER = re.compile(r"Received ClickHouse exception, code: \d+, server response: ")
_CODE = re.compile(r"^Code: (\d+)\. DB::Exception: ")
_TAIL = re.compile(r"( \(version [^()]*(\([^()]*\))?\))?( \(for url [^)]*\))?$")
_GRAMMAR = re.compile(r"\.? Expected one of: .*?(?=\.? \([A-Z_]+\)|$)", re.DOTALL)
_COMMENT = re.compile(r"--\s")
_READS = re.compile(r"(\s|\(|--[^\n]*\n|/\*.*?\*/)*(SELECT|WITH|FROM|VALUES)\b", re.I | re.DOTALL)


class _MayBeginWithAComment(click.Command):
    """Takes ``-- ...`` for a query that begins with a comment, and not for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f" {a}" if _COMMENT.match(a) else a for a in args])


@click.command(cls=_MayBeginWithAComment, short_help="Ask ClickHouse anything.")
@click.argument("query")
@dir_option()
@click.option("--clickhouse", metavar="URL", help="Ask this ClickHouse.")
@click.option(
    "--format",
    "output_format",
    metavar="FORMAT",
    help=f"Any of ClickHouse's formats, such as CSV (default {TABLE}).",
)
@json_option
def sql(
    query: str, folder: Path, clickhouse: str | None, output_format: str | None, as_json: bool
) -> None:
    """Ask ClickHouse. The views are cost_requests, cost_windows and cost_anomalies.

    \b
    meter sql "SELECT tenant, sum(cost_usd) FROM cost_requests GROUP BY tenant"

    An answer without rows is the names of its columns, and "0 rows" on stderr.
    """
    if not query.strip(" \t\r\n;"):
        raise click.BadParameter("it is empty", param_hint="QUERY")
    from sinks.clickhouse.queries import ClickHouseReader
    from streams.targets import clickhouse_target

    wanted = output_format or ("JSON" if as_json else TABLE)
    settings = running_settings(folder, clickhouse=clickhouse)
    try:
        reader = ClickHouseReader(clickhouse_target(settings))
    except SinkUnavailable as exc:
        raise explain_absence(folder, exc) from exc
    try:
        answer = reader.raw(query, wanted)
        if not answer and wanted == TABLE:
            answer = _names(reader, query)
            click.echo("0 rows", err=True)
    except QueryFailed as exc:
        raise QueryFailed(shortened(str(exc))) from exc
    finally:
        reader.close()
    click.echo(answer, nl=False)


def _names(reader: ClickHouseReader, query: str) -> bytes:
    """The names of the columns that a table without rows does not show; nothing for a statement
    that has none, or that must not be asked twice."""
    if not _READS.match(query):
        return b""
    names = reader.raw(query, HEADER_ONLY).split(b"\n", 1)[0]
    return names + b"\n" if names else b""


def shortened(message: str) -> str:
    """ClickHouse's error without the list of all that could stand there, the server's version and
    the driver's own words: what is wrong, with its position and code.

    >>> shortened("ClickHouse at U: Code: 62. DB::Exception: Syntax error: failed at position 1 "
    ...           "(SELEC): SELEC 1. Expected one of: Query, WITH. (SYNTAX_ERROR) (version 26.9)")
    'ClickHouse at U: Syntax error: failed at position 1 (SELEC): SELEC 1 (SYNTAX_ERROR, code 62)'
    """
    where, colon, text = message.partition(": ")
    text = _TAIL.sub("", _FROM_DRIVER.sub("", text.strip()))
    code = _CODE.match(text)
    text = " ".join(_GRAMMAR.sub("", _CODE.sub("", text)).split())
    if code is not None:
        text = re.sub(r"[. ]*\(([A-Z_]+)\)$", rf" (\1, code {code[1]})", text)
    if len(text) > MOST_CHARACTERS:
        text = f"{text[: MOST_CHARACTERS // 2]} … {text[-MOST_CHARACTERS // 2 :]}"
    return where + colon + text

"""``meter doctor``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from streams.cli.common import dir_option, json_option


@click.command(short_help="What this machine has and what it lacks.")
@dir_option()
@json_option
def doctor(folder: Path, as_json: bool) -> None:
    """What this machine has and what it lacks, and how to get it.

    Exits with 1 if something is missing that is needed.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from streams.doctor import checks

    found = checks(folder)
    if as_json:
        click.echo(json.dumps([asdict(check) for check in found], indent=2))
    else:
        table = Table(box=None, show_header=False)
        for check in found:
            mark = "[green]✓[/]" if check.ok else "[red]✗[/]" if check.needed else "[dim]–[/]"
            how = "" if check.ok else check.how_to_get_it
            table.add_row(mark, check.name, Text(check.found), Text(how))
        Console().print(table)
    sys.exit(0 if all(check.ok or not check.needed for check in found) else 1)

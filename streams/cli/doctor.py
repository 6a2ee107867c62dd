"""``meter doctor``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from streams.cli.common import dir_option, json_option
from streams.doctor import checks


@click.command(short_help="What this machine has and what it lacks.")
@dir_option()
@json_option
def doctor(folder: Path, as_json: bool) -> None:
    """What this machine has and what it lacks, and how to get it.

    Exits with 1 if something is missing that is needed.
    """
    found = checks(folder)
    if as_json:
        click.echo(json.dumps([asdict(check) for check in found], indent=2))
    else:
        table = Table(box=None, show_header=False)
        for check in found:
            mark = "[green]✓[/]" if check.ok else "[red]✗[/]" if check.needed else "[dim]–[/]"
            table.add_row(mark, check.name, check.found, "" if check.ok else check.how_to_get_it)
        Console().print(table)
    sys.exit(0 if all(check.ok or not check.needed for check in found) else 1)

"""``meter doctor``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streams.cli.common import dir_option, json_option

if TYPE_CHECKING:
    from rich.table import Table

    from streams.doctor import Check


@click.command(short_help="What this machine has and what it lacks.")
@dir_option()
@json_option
def doctor(folder: Path, as_json: bool) -> None:
    """What this machine has and what it lacks, and how to get it.

    Exits with 1 if something is missing that is needed.
    """
    from rich.console import Console

    from streams.doctor import checks

    found = checks(folder)
    if as_json:
        click.echo(json.dumps([asdict(check) for check in found], indent=2))
    else:
        Console().print(shown(found))
    sys.exit(0 if all(check.ok or not check.needed for check in found) else 1)


def shown(found: Sequence[Check]) -> Table:
    """One row a check; how to get what is missing is below what was found, and no path is cut."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False)
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in found:
        mark = "[green]✓[/]" if check.ok else "[red]✗[/]" if check.needed else "[dim]–[/]"
        said = Text(check.found)
        if not check.ok and check.how_to_get_it:
            said.append(f"\n{check.how_to_get_it}", "dim")
        table.add_row(mark, check.name, said)
    return table

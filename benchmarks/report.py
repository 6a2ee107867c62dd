"""Figures of a run: shown as a table, and written as JSON for whoever doubts them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from streams.stack.places import REPO


@dataclass(frozen=True, slots=True)
class Figure:
    """``holds`` is ``None`` where nothing is claimed; ``spread`` says what ``value`` varied by."""

    value: float
    unit: str
    target: str | None = None
    holds: bool | None = None
    spread: str | None = None


def none_of(count: int, unit: str) -> Figure:
    return Figure(count, unit, "0", count == 0)


def show(title: str, figures: dict[str, Figure]) -> None:
    """Fits a terminal of 80 columns."""
    table = Table("figure", "value", "target", "holds", title=title, box=None, pad_edge=False)
    for name, f in figures.items():
        holds = "" if f.holds is None else "yes" if f.holds else "NO"
        spread = f" ({f.spread})" if f.spread else ""
        table.add_row(name, f"{f.value:g} {f.unit}{spread}", f.target or "", holds)
    Console().print(table)


def write(path: Path, figures: dict[str, Figure]) -> None:
    document = {
        "machine": f"{os.cpu_count()} × {platform.machine()}, {platform.platform()}",
        "commit": _commit(),
        "figures": {name: asdict(figure) for name, figure in figures.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _commit() -> str:
    """With ``+changes`` where the tree differs from it; empty outside of a checkout."""
    try:
        told = subprocess.run(
            ["git", "-C", str(REPO), "describe", "--always", "--dirty=+changes", "--abbrev=40"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return told.stdout.strip()

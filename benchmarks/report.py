"""What a run says while it goes on, and its figures: shown as a table, and written as JSON for
whoever doubts them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from streams.stack.places import REPO

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Figure:
    """``holds`` is ``None`` where nothing is claimed; ``spread`` says what ``value`` varied by."""

    value: float
    unit: str
    target: str | None = None
    holds: bool | None = None
    spread: str | None = None


class Narrator:
    """A ``Say``: lines with the seconds since it was made."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self._begun:7.1f} s  {text}", flush=True)

    def took(self) -> Figure:
        return Figure(round(time.monotonic() - self._begun), "s")


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


def end(path: Path, figures: dict[str, Figure], *beside: Path) -> NoReturn:
    """Write them, and end: with 1 where something that is claimed does not hold. ``beside``: what
    else was written."""
    write(path, figures)
    print(f"written to {' and '.join(str(p.relative_to(REPO)) for p in (path, *beside))}")
    sys.exit(any(figure.holds is False for figure in figures.values()))


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

"""How long the demo takes, and how much of Triton's own GPU time is metered in it.

``python -m benchmarks.bench_demo``: a table, and ``build/results/demo.json``. It runs
``meter demo`` three times, each with a SIGKILL of the worker in the middle; with ``QUICK=1`` once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report import Figure, Narrator, end, none_of, show

RESULTS = Path("build/results/demo.json")
RUNS = 3
MAX_S = 150
MIN_SHARE = 0.9


def main() -> None:
    quick = os.environ.get("QUICK") == "1"
    say = Narrator()
    reports = []
    for n in range(1 if quick else RUNS):
        say(f"demo {n + 1}")
        reports.append(demo())
        say(f"demo {n + 1} took {reports[-1]['seconds']} s")
    figures = figures_of(reports)
    figures["took"] = say.took()
    show("the demo", figures)
    end(RESULTS.resolve(), figures)


def demo() -> dict[str, Any]:
    """The demo's own report. Raises CalledProcessError: it did not get as far as that."""
    with tempfile.TemporaryDirectory(prefix="meter-demo-") as folder:
        command = [sys.executable, "-m", "streams.cli", "demo", "--json", "--kill", "worker"]
        done = subprocess.run(
            [*command, "--dir", str(Path(folder) / "stack")], stdout=subprocess.PIPE, check=False
        )
    if not done.stdout:
        raise subprocess.CalledProcessError(done.returncode, command)
    return dict(json.loads(done.stdout))


def figures_of(reports: list[dict[str, Any]]) -> dict[str, Figure]:
    """Of at least one report."""
    seconds = [report["seconds"] for report in reports]
    figures = {
        "problems": none_of(sum(len(report["problems"]) for report in reports), "problems"),
        "duration": Figure(
            median(seconds), "s", f"<= {MAX_S}", median(seconds) <= MAX_S, _spread(seconds)
        ),
    }
    for model in reports[0]["reconciliation"]:
        sides = [report["reconciliation"][model]["gpu_ns"] for report in reports]
        shares = [side["metered"] / side["server"] for side in sides]
        share = median(shares)
        figures[f"GPU time metered, {model}"] = Figure(
            round(share, 4),
            "of Triton's",
            f"{MIN_SHARE} to 1",
            MIN_SHARE <= share <= 1,
            _spread(shares),
        )
    return figures


def _spread(values: list[float]) -> str:
    return f"{min(values):.4g} to {max(values):.4g}"


if __name__ == "__main__":
    main()

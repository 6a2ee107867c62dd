"""What metering costs a Triton server: ``make bench-triton``, or with ``QUICK=1``.

One real server with three models that are switched between metered and not while 64 clients keep
it busy; beside it the shipper, and the Kafka that it ships to, on the same cores. Blocks come in
pairs: on and off, and off and off, which is what the machine varies by itself. ``SEED`` draws the
order.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Figure, show, write
from benchmarks.triton.board import FOLDER_VARIABLE, Board
from benchmarks.triton.clients import CONCURRENCY
from benchmarks.triton.figures import figures_of
from benchmarks.triton.measure import measure
from benchmarks.triton.statistics import plan
from streams.stack.config import StackConfig
from streams.stack.places import REPO
from streams.stack.stack import Stack

RESULTS = REPO / "build" / "results" / "bench_triton.json"
MODELS = ("wait36", "wait18", "spin")
REPOSITORY = REPO / "benchmarks" / "triton" / "models"
RAN = (
    f"On the same {os.cpu_count()} cores ran: one Triton with all models, the shipper, one Kafka "
    f"node, {CONCURRENCY} clients."
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """A block settles after its switch, then counts. Many short blocks tell more than few long
    ones in the same time: what else the machine does then differs less within a pair."""

    pairs: int
    settle_s: float
    count_s: float


FULL = Sizes(24, 0.5, 2.0)
QUICK = Sizes(4, 0.2, 0.5)


async def run(sizes: Sizes, seed: int) -> dict[str, Figure]:
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:7.1f} s  {text}", flush=True)

    folder = Path(tempfile.mkdtemp(prefix="meter-bench-"))
    try:
        boards = _boards(folder / "boards")
        _show_models_this_package(folder)
        config = StackConfig(
            folder,
            models=MODELS,
            model_repository=REPOSITORY,
            emitter_env={FOLDER_VARIABLE: str(folder / "boards")},
            preferred_ports=False,
        )
        figures: dict[str, Figure] = {}
        async with Stack(config, say, only=("triton", "shipper")) as stack:
            for number, model in enumerate(MODELS):
                measured = await measure(
                    stack,
                    boards[model],
                    model,
                    plan(sizes.pairs, seed + number),
                    settle_s=sizes.settle_s,
                    count_s=sizes.count_s,
                    say=say,
                )
                figures |= figures_of(model, measured)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    figures["took"] = Figure(round(time.monotonic() - begun), "s")
    return figures


def _boards(folder: Path) -> dict[str, Board]:
    folder.mkdir(parents=True)
    return {model: Board.create(folder / model) for model in MODELS}


def _show_models_this_package(folder: Path) -> None:
    """Where the stack has the models find the project's packages."""
    backend = folder / "triton" / "backends" / "python"
    backend.mkdir(parents=True)
    (backend / "benchmarks").symlink_to(REPO / "benchmarks")


def main() -> None:
    sizes = QUICK if os.environ.get("QUICK") == "1" else FULL
    seed = int(os.environ.get("SEED", "1"))
    figures = asyncio.run(run(sizes, seed))
    print(RAN)
    show(f"metering on against off, {sizes.pairs} pairs (seed {seed})", figures)
    write(RESULTS, figures)
    print(f"written to {RESULTS.relative_to(REPO)}")
    sys.exit(any(figure.holds is False for figure in figures.values()))


if __name__ == "__main__":
    main()

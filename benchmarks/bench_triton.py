"""What metering costs a Triton server: ``make bench-triton``, or with ``QUICK=1``.

One real server with three models that are switched between metered and not while 64 clients keep
it busy. Blocks come in pairs: on and off, and off and off, which is what the machine varies by
itself. A block is four batches in a row. ``SEED`` draws the order.

Twice: first with the shipper, and the Kafka that it ships to, at work on the same cores; then with
both held, and usage waiting in the log. The first is told, and depends on how many cores there
are; the second is what metering costs the server itself, and has the targets.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.report import Figure, Narrator, end, show
from benchmarks.triton.board import FOLDER_VARIABLE, Board
from benchmarks.triton.clients import CONCURRENCY
from benchmarks.triton.figures import figures_beside, figures_of
from benchmarks.triton.measure import Run, measure
from benchmarks.triton.statistics import plan
from streams.stack.config import StackConfig
from streams.stack.groups import kill_group
from streams.stack.places import REPO
from streams.stack.stack import Stack

RESULTS = REPO / "build" / "results" / "bench_triton.json"
MODELS = {"wait36": 150, "wait18": 300, "spin": 1600}
"""With the pairs of blocks in a full run's first series. Many short blocks tell more than few long
ones in the same time: on a machine that others use too, the speed of one batch differs from the
next one's by as much as that of one second from the next, so what counts are pairs. The model that
holds the interpreter varies most by itself."""
NOISE_PART = 3
"""What part of them are off and off."""
BESIDE_PART, QUICK_PART = 4, 15
"""What part of both the second series, and a quick run, have."""
REPOSITORY = REPO / "benchmarks" / "triton" / "models"
BESIDE = "shipping beside it"
RAN = (
    f"On the same {os.cpu_count()} cores ran: one Triton with all models, {CONCURRENCY} clients; "
    f"under '{BESIDE}' also the shipper and one Kafka node, which were held for the other figures."
)


async def run(part: int, seed: int) -> dict[str, Figure]:
    say = Narrator()
    folder = Path(tempfile.mkdtemp(prefix="meter-bench-"))
    try:
        boards = _boards(folder / "boards")
        _show_models_this_package(folder)
        config = StackConfig(
            folder,
            models=tuple(MODELS),
            model_repository=REPOSITORY,
            emitter_env={FOLDER_VARIABLE: str(folder / "boards")},
            preferred_ports=False,
        )
        figures: dict[str, Figure] = {}
        async with Stack(config, say, only=("triton", "shipper")) as stack:

            async def runs(part: int, seed: int) -> dict[str, Run]:
                found = {}
                for number, (model, pairs) in enumerate(MODELS.items()):
                    counts = pairs // part, max(2, pairs // part // NOISE_PART)
                    blocks = list(plan(*counts, seed + number))
                    found[model] = await measure(stack, boards[model], model, blocks, say)
                return found

            beside = await runs(part * BESIDE_PART, seed)
            with held(stack, "shipper", "kafka"):
                alone = await runs(part, seed + len(MODELS))
        for model in MODELS:
            figures |= figures_of(model, alone[model])
        for model in MODELS:
            figures |= figures_beside(f"{model}, {BESIDE}", beside[model])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    figures["took"] = say.took()
    return figures


@contextmanager
def held(stack: Stack, *names: str) -> Iterator[None]:
    """SIGSTOP: what they have begun waits."""
    groups = [stack.endpoints.pids[name] for name in names]
    for group in groups:
        kill_group(group, signal.SIGSTOP)
    try:
        yield
    finally:
        for group in groups:
            kill_group(group, signal.SIGCONT)


def _boards(folder: Path) -> dict[str, Board]:
    folder.mkdir(parents=True)
    return {model: Board.create(folder / model) for model in MODELS}


def _show_models_this_package(folder: Path) -> None:
    """Where the stack has the models find the project's packages."""
    backend = folder / "triton" / "backends" / "python"
    backend.mkdir(parents=True)
    (backend / "benchmarks").symlink_to(REPO / "benchmarks")


def main() -> None:
    part = QUICK_PART if os.environ.get("QUICK") == "1" else 1
    seed = int(os.environ.get("SEED", "1"))
    figures = asyncio.run(run(part, seed))
    print(RAN)
    show(f"metering on against off (seed {seed})", figures)
    end(RESULTS, figures)


if __name__ == "__main__":
    main()

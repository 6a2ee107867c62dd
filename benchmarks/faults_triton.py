"""Kills, outages and losses of the whole chain under load: ``make faults-triton`` (``QUICK=1``).

Two stacks of real processes. On the first nothing may be lost: its broker is frozen (SIGSTOP), then
away (killed and held down), while clients go on; then every kind of process is killed (SIGKILL)
at moments drawn from a seed. All that clients got an answer for must be in ClickHouse, once.
Requests that fail because their server was killed are counted; nobody claims them.

On the second the log loses: its cap is so small that it overflows while the broker is away, and it
lies on a disk so small that something else can fill it. What clients got an answer for must be
in ClickHouse once, or counted as lost, to the request. It is a stack of its own, for with such a
cap the first would drop in its outages; and one for both, as the cap is far below the disk's size.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from benchmarks.faults.disk import filled, log_on_small_disk
from benchmarks.faults.kills import TARGETS
from benchmarks.faults.load import MODELS
from benchmarks.faults.outages import away, frozen
from benchmarks.faults.parts import Fault, Parts, Sizes
from benchmarks.report import Figure, Narrator, Say, end, none_of, show
from metering.errors import StackError
from streams.stack.config import StackConfig
from streams.stack.places import REPO
from streams.stack.stack import Stack

RESULTS = REPO / "build" / "results" / "faults_triton.json"
KIB = 1024
FULL = Sizes(
    kills=50,
    shortest_pause_s=0.5,
    longest_pause_s=12.0,
    before_s=40.0,
    after_s=20.0,
    frozen_s=60.0,
    away_s=120.0,
    cap_s=60.0,
    disk_s=60.0,
    cap_bytes=256 * KIB,
    disk_bytes=4096 * KIB,
    settle_s=180.0,
)
QUICK = Sizes(
    kills=len(TARGETS),
    shortest_pause_s=0.6,
    longest_pause_s=1.4,
    before_s=2.0,
    after_s=1.0,
    frozen_s=3.0,
    away_s=3.0,
    cap_s=3.0,
    disk_s=3.0,
    cap_bytes=24 * KIB,
    disk_bytes=4096 * KIB,
    settle_s=60.0,
)


async def run(sizes: Sizes, seed: int) -> dict[str, Figure]:
    say = Narrator()
    folder = Path(tempfile.mkdtemp(prefix="meter-faults-"))
    first = StackConfig(folder / "lossless", models=MODELS, preferred_ports=False)
    try:
        async with Stack(first, say) as stack:
            figures = await lossless(stack, sizes, seed, say)
            stopping = asyncio.create_task(stack.stop())  # While the second one starts.
            try:
                figures |= await losing(folder / "losing", sizes, seed, say)
            finally:
                await stopping
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    figures["took"] = say.took()
    return figures


async def lossless(stack: Stack, sizes: Sizes, seed: int, say: Say) -> dict[str, Figure]:
    with giving_up(stack) as given_up:
        parts = Parts(stack, sizes, seed, say)
        await parts.fault(Fault("frozen", sizes.frozen_s, frozen))
        await parts.fault(Fault("away", sizes.away_s, away))
        await parts.kills()
        await parts.in_the_end("lossless")
        return parts.figures | {"lossless: given up": given_up()}


async def losing(folder: Path, sizes: Sizes, seed: int, say: Say) -> dict[str, Figure]:
    """Where no small disk can be had, the log's cap is put to the test all the same, and the disk
    is a claim that does not hold."""
    config = StackConfig(
        folder, models=MODELS, preferred_ports=False, log_max_bytes=sizes.cap_bytes
    )
    with ExitStack() as mounts:
        disk: Path | None = None
        try:
            disk = mounts.enter_context(log_on_small_disk(folder, sizes.disk_bytes))
        except StackError as problem:
            say(f"disk: {problem}")
        async with Stack(config, say) as stack:
            with giving_up(stack) as given_up:
                parts = Parts(stack, sizes, seed, say)
                await parts.fault(Fault("cap", sizes.cap_s, away, loses="dropped"))
                if disk is not None:
                    await parts.fault(
                        Fault("disk", sizes.disk_s, lambda _: filled(disk), loses="unwritten")
                    )
                parts.figures["disk: none to be had"] = none_of(disk is None, "disks")
                await parts.in_the_end("losing")
                return parts.figures | {"losing: given up": given_up()}


@contextmanager
def giving_up(stack: Stack) -> Iterator[Callable[[], Figure]]:
    """Whether a process was given up by then, for it died again and again."""
    watching = asyncio.create_task(stack.wait())

    def given_up() -> Figure:
        return none_of(watching.done(), "processes")

    try:
        yield given_up
    finally:
        watching.cancel()
        with suppress(asyncio.InvalidStateError, asyncio.CancelledError):
            watching.exception()  # It was told of.


def main() -> None:
    sizes = QUICK if os.environ.get("QUICK") == "1" else FULL
    seed = int(os.environ.get("SEED", "1"))
    figures = asyncio.run(run(sizes, seed))
    show(f"kills, outages and losses (seed {seed})", figures)
    end(RESULTS, figures)


if __name__ == "__main__":
    main()

"""How old usage is when others see what it cost: ``make bench-freshness``, or with ``QUICK=1``.

A steady load of 20,000 requests a second on the real Kafka, ClickHouse endpoint and worker, and
three delays of it, each from the broker's stamp of the usage message: to SQL, to a consumer of the
lines, to a consumer of the windows.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time

from benchmarks.report import Figure, Narrator, Say, end, show
from benchmarks.steady import sent as sent_log
from benchmarks.steady.freshness import Watched, figures_of
from benchmarks.steady.own_stack import own_stack
from benchmarks.steady.process import SenderProcess, cpu_s, machine_busy_s
from benchmarks.steady.received import Received, lines_of, windows_of
from benchmarks.steady.sender import Load
from benchmarks.steady.visible import Visible
from metering.errors import MeteringError
from streams.stack.places import REPO
from streams.stack.stack import Stack
from streams.topics import ADDITIONS, USAGE_BATCHES

RESULTS = REPO / "build" / "results" / "bench_freshness.json"
WINDOW_S = 10
BATCH_SIZE = 32
TENANTS = 20
"""With 5 models in 5 regions: 500 cohorts."""
TAIL_S = 3.0
"""Of load behind the last message that is measured: it is steady for that one too."""
DRAIN_S = 5.0
"""Longer than a target, so that what is missing then is a miss in any case."""
WATCHED = ("worker", "clickhouse", "kafka")


async def run(options: argparse.Namespace, say: Say) -> dict[str, Figure]:
    partitions = dict.fromkeys((USAGE_BATCHES, ADDITIONS), options.partitions)
    async with own_stack(say, partitions) as stack:
        log = stack.endpoints.folder / "sent.npy"
        load = Load(
            options.rate,
            BATCH_SIZE,
            TENANTS,
            seconds=options.warm_up + options.seconds + TAIL_S,
            log=str(log),
        )
        async with (
            Received(stack.settings) as received,
            Visible(stack.settings, options.ask_sql_every_s) as visible,
        ):
            period, cpu = await go_through(stack, load, options, say)
            await asyncio.sleep(DRAIN_S)
            visible.check()
            received.check()
        if sum(stack.restarts.values()):
            raise MeteringError(f"processes were restarted: {stack.restarts}")
        sent = sent_log.load(log)
    say("matching")
    watched = Watched(
        load.templates(),
        sent,
        *period,
        in_sql=visible.lines(),
        delivered=lines_of(received.requests),
        counted=windows_of(received.windows, WINDOW_S),
        window_s=WINDOW_S,
    )
    return figures_of(watched, options.rate) | {
        "partitions": Figure(options.partitions, "of usage"),
        **{f"cpu_{name}": Figure(round(100 * of, 1), "% of a core") for name, of in cpu.items()},
        "sql_question": Figure(
            round(1000 * visible.asking_s / max(1, visible.asked), 1), "ms", spread="mean"
        ),
    }


async def go_through(
    stack: Stack, load: Load, options: argparse.Namespace, say: Say
) -> tuple[tuple[int, int], dict[str, float]]:
    """The load from begin to end: the period that is measured, and the cores that each process had
    in it. ``others`` is what else the machine did, which is in the delays too."""
    sender = SenderProcess(load, stack.settings, stack.endpoints.folder)
    try:
        await sender.start()
        say(f"warming up, {options.warm_up:g} s at {options.rate:,.0f} requests/s")
        await asyncio.sleep(options.warm_up)
        pids = {name: stack.endpoints.pids[name] for name in WATCHED}
        pids |= {"sender": sender.pid, "watcher": os.getpid()}
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        busy_before_s = machine_busy_s()
        first_ns = time.time_ns()
        end_ns = first_ns + int(options.seconds * 1e9)
        say(f"measuring, {options.seconds:g} s")
        await asyncio.sleep((end_ns - time.time_ns()) / 1e9)
        cpu = {name: (cpu_s(pid) - before[name]) / options.seconds for name, pid in pids.items()}
        busy = (machine_busy_s() - busy_before_s) / options.seconds
        cpu["others"] = max(0.0, busy - sum(cpu.values()))  # the two clocks differ by a little
        await sender.finished()
    finally:
        await sender.kill()
    return (first_ns, end_ns), cpu


def main() -> None:
    quick = os.environ.get("QUICK") == "1"
    parser = argparse.ArgumentParser(prog="bench_freshness", description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=20_000, help="requests a second")
    parser.add_argument("--seconds", type=float, default=15.0 if quick else 60.0)
    parser.add_argument("--warm-up", type=float, default=8.0 if quick else 20.0)
    parser.add_argument("--ask-sql-every-s", type=float, default=0.1)
    parser.add_argument("--partitions", type=int, default=1, help="of usage and of additions")
    options = parser.parse_args()
    say = Narrator()
    figures = asyncio.run(run(options, say))
    figures["took"] = say.took()
    show(f"{options.rate:,.0f} requests/s, measured for {options.seconds:g} s", figures)
    end(RESULTS, figures)


if __name__ == "__main__":
    main()

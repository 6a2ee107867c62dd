"""What the worker holds in memory: ``make bench-memory``, or with ``QUICK=1``.

First a steady load for half an hour, in which its memory must neither grow nor shrink; then, with a
new worker, more and more cohorts, and how many bytes each of them takes.
"""

from __future__ import annotations

import argparse
import asyncio
import os

from benchmarks.report import Figure, Narrator, Say, end, none_of, show
from benchmarks.steady.memory import (
    BATCH_SIZE,
    MIB,
    SEQUENCES,
    Course,
    Samples,
    course,
    write_samples,
)
from benchmarks.steady.own_stack import own_stack
from benchmarks.steady.sender import Load
from benchmarks.steady.templates import COHORTS_OF_TENANT, tenants_for
from benchmarks.steady.trend import last_part, line_through, trend_of
from streams.stack.places import REPO

RESULTS = REPO / "build" / "results" / "bench_memory.json"
SAMPLES = RESULTS.with_suffix(".csv")
TENANTS = 20
FLAT = 0.05
LINEAR_R2 = 0.98
LEVEL_S = 30.0


async def steady(options: argparse.Namespace, say: Say) -> Course:
    say(f"{options.rate:,.0f} requests/s of {TENANTS * COHORTS_OF_TENANT:,} cohorts")
    load = Load(options.rate, BATCH_SIZE, TENANTS, seconds=options.minutes * 60)
    async with own_stack(say) as stack:
        return await course(stack, load, every_s=options.every_s, say=say)


async def steps(options: argparse.Namespace, say: Say) -> dict[int, Course]:
    """By number of cohorts. Each step has those of the one before, and more."""
    found: dict[int, Course] = {}
    async with own_stack(say) as stack:
        for number, wanted in enumerate(sorted(options.cohorts)):
            tenants = tenants_for(wanted)
            cohorts = tenants * COHORTS_OF_TENANT
            load = Load(
                options.rate,
                BATCH_SIZE,
                tenants,
                seconds=options.step_s,
                first_sequence=number * SEQUENCES,
            )
            done = await course(stack, load, every_s=options.every_s, say=say)
            level = done.samples.level(level_s(options)) / MIB
            say(f"{cohorts:,} cohorts: {level:,.0f} MiB   {done.samples.drawn()}")
            found[cohorts] = done
            if done.behind:
                say(f"the worker is {done.behind:,} messages behind: no further step")
                break
    return found


def level_s(options: argparse.Namespace) -> float:
    return float(min(LEVEL_S, options.step_s / 3))


def figures_of_steady(done: Course, claimed: bool) -> dict[str, Figure]:
    """``claimed``: it has run for long enough to be held against the target."""
    samples = done.samples
    from_s = samples.seconds[-1] / 3
    seconds, values = last_part(samples.seconds, samples.bytes, from_s=from_s)
    trend = trend_of(seconds, values)
    own = trend_of(*last_part(samples.seconds, samples.anonymous, from_s=from_s))
    return {
        "steady_mean": Figure(round(trend.mean / MIB, 1), "MiB"),
        "steady_most": Figure(round(max(samples.bytes) / MIB, 1), "MiB"),
        "steady_change": Figure(
            round(100 * trend.change, 2),
            "%",
            f"± {FLAT:.0%}" if claimed else None,
            abs(trend.change) <= FLAT if claimed else None,
            f"in {seconds[-1] - seconds[0]:,.0f} s",
        ),
        "steady_slope": Figure(round(trend.per_s * 3600 / MIB, 1), "MiB/h"),
        "steady_anonymous_mean": Figure(round(own.mean / MIB, 1), "MiB"),
        "steady_anonymous_change": Figure(round(100 * own.change, 2), "%"),
        "steady_sent": Figure(done.sent * BATCH_SIZE, "requests"),
        "steady_behind": none_of(done.behind, "messages"),
    }


def figures_of_steps(
    found: dict[int, Course], wanted: int, last_s: float, claimed: bool
) -> dict[str, Figure]:
    """Only of steps with which the worker has kept up."""
    kept_up = {n: done.samples for n, done in found.items() if not done.behind}
    levels = {n: samples.level(last_s) for n, samples in kept_up.items()}
    figures = {
        f"rss_of_{n}_cohorts": Figure(
            round(levels[n] / MIB, 1),
            "MiB",
            spread=f"{100 * samples.change(last_s):+.1f} % in {last_s:.0f} s",
        )
        for n, samples in kept_up.items()
    }
    figures["steps_missed"] = none_of(wanted - len(levels), "steps")
    if len(levels) < 2:
        return figures
    line = line_through(list(levels), list(levels.values()))
    claimed = claimed and len(levels) > 2  # two points are always on a line
    return figures | {
        "bytes_per_cohort": Figure(round(line.slope), "bytes"),
        "without_cohorts": Figure(round(line.intercept / MIB, 1), "MiB"),
        "linear_r2": Figure(
            round(line.r2, 4),
            "",
            f"≥ {LINEAR_R2}" if claimed else None,
            line.r2 >= LINEAR_R2 if claimed else None,
        ),
    }


def parsed(quick: bool) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_memory", description="What the worker holds.")
    parser.add_argument("--minutes", type=float, default=0.3 if quick else 30.0)
    parser.add_argument("--rate", type=float, default=5_000, help="requests a second")
    parser.add_argument(
        "--cohorts",
        type=lambda text: [int(n) for n in text.split(",") if n],
        default=[500, 2_000] if quick else [500, 5_000, 20_000, 50_000],
        help="steps, separated by commas; empty: none",
    )
    parser.add_argument(
        "--step-s", type=float, default=8.0 if quick else 210.0, help="how long a step is"
    )
    parser.add_argument("--every-s", type=float, default=0.5 if quick else 2.0)
    return parser.parse_args()


def main() -> None:
    quick = os.environ.get("QUICK") == "1"
    options = parsed(quick)
    say = Narrator()
    parts: dict[str, Samples] = {}
    figures: dict[str, Figure] = {}
    if options.minutes > 0:
        done = asyncio.run(steady(options, say))
        say(done.samples.drawn())
        parts["steady"] = done.samples
        figures |= figures_of_steady(done, claimed=options.minutes >= 5)
    if options.cohorts:
        found = asyncio.run(steps(options, say))
        parts |= {f"{cohorts} cohorts": c.samples for cohorts, c in found.items()}
        figures |= figures_of_steps(found, len(options.cohorts), level_s(options), not quick)
    figures["took"] = say.took()
    show(f"the worker's memory at {options.rate:,.0f} requests/s", figures)
    write_samples(SAMPLES, parts)
    end(RESULTS, figures, SAMPLES)


if __name__ == "__main__":
    main()

"""From a model's blocks to figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median

from benchmarks.report import Figure
from benchmarks.triton.measure import Measured, Run
from benchmarks.triton.statistics import Change, change_of, quantile

THROUGHPUT_PERCENT = -1.0
SERVE_PERCENT = 1.0
ERROR_PERCENT = 1.0
"""The most that the standard error of either may be: a change that can't be seen is no proof."""


def figures_of(model: str, run: Run) -> dict[str, Figure]:
    pairs, noise = pairs_of(run.blocks, noise=False), pairs_of(run.blocks, noise=True)
    on, off = [a for a, _ in pairs], [b for _, b in pairs]
    throughput = _change(pairs, lambda m: m.requests_per_s)
    serve = _change(pairs, lambda m: m.serve_ns)
    metering_us = median(a.beside_us - b.beside_us for a, b in pairs)
    figures = {
        "throughput": _told(
            throughput,
            f"≥ {THROUGHPUT_PERCENT:g} ± {ERROR_PERCENT:g}",
            throughput.at_least(THROUGHPUT_PERCENT, ERROR_PERCENT),
        ),
        "throughput, noise": _told(_change(noise, lambda m: m.requests_per_s)),
        "batch time": _told(
            serve,
            f"≤ {SERVE_PERCENT:g} ± {ERROR_PERCENT:g}",
            serve.at_most(SERVE_PERCENT, ERROR_PERCENT),
        ),
        "batch time, noise": _told(_change(noise, lambda m: m.serve_ns)),
        "p50": _latency(pairs, 0.5),
        "p99": _latency(pairs, 0.99),
        "p99, noise": _latency(noise, 0.99),
        "metering": Figure(
            round(metering_us),
            "µs a batch",
            spread=f"{100 * metering_us / median(m.period_us for m in off):.2f} % of its period",
        ),
        "beside the model": Figure(
            round(median(m.beside_us for m in on)),
            "µs a batch",
            spread=f"off {median(m.beside_us for m in off):.0f}",
        ),
        "requests": Figure(
            round(median(m.requests_per_s for m in on)),
            "per s",
            spread=f"off {median(m.requests_per_s for m in off):.0f}",
        ),
        "batch": Figure(
            round(fmean(m.batch_size for m in on), 1),
            "requests",
            spread=f"{fmean(m.serve_ns for m in off) / 1e6:.1f} ms when off",
        ),
    }
    figures["cores"] = _cores(run.cores)
    return {f"{model}: {name}": figure for name, figure in figures.items()}


def figures_beside(model: str, run: Run) -> dict[str, Figure]:
    """The same without targets, and less of it."""
    kept = ("throughput", "throughput, noise", "batch time", "p50", "p99", "cores")
    return {
        name: replace(figure, target=None, holds=None)
        for name, figure in figures_of(model, run).items()
        if name.removeprefix(f"{model}: ") in kept
    }


def _cores(busy: Mapping[str, float]) -> Figure:
    """On and off together."""
    told = ", ".join(f"{part} {cores:.2f}" for part, cores in busy.items())
    return Figure(round(sum(busy.values()), 2), "busy", spread=told)


def pairs_of(blocks: Sequence[Measured], *, noise: bool) -> list[tuple[Measured, Measured]]:
    """(compared, other) of each pair of one kind, in the order of the pairs."""
    compared = {m.block.pair: m for m in blocks if m.block.noise == noise and m.block.compared}
    others = {m.block.pair: m for m in blocks if m.block.noise == noise and not m.block.compared}
    return [(compared[pair], others[pair]) for pair in sorted(compared)]


def _change(
    pairs: Sequence[tuple[Measured, Measured]], value: Callable[[Measured], float]
) -> Change:
    return change_of([(value(a), value(b)) for a, b in pairs])


def _told(change: Change, target: str | None = None, holds: bool | None = None) -> Figure:
    told = f"± {change.standard_error:.2f}, {change.pairs} pairs"
    return Figure(round(change.percent, 2), "%", target, holds, told)


def _latency(pairs: Sequence[tuple[Measured, Measured]], q: float) -> Figure:
    """Of all answers of a side: a block alone has too few for a p99."""
    on, off = (
        1e3 * quantile([s for m in side for s in m.latencies_s], q)
        for side in zip(*pairs, strict=True)
    )
    return Figure(round(on - off, 2), "ms", spread=f"{100 * (on / off - 1):+.1f} % of {off:.1f}")

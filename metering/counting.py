"""Priced lines into windows, many at once; held to ``metering.windows.count``, line by line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from metering.columns import Whole, run_starts, segment_sums
from metering.lines import CostLines
from metering.usage import WASTED
from metering.windows import NS_PER_SECOND, WINDOW_SECONDS, Tally, Window, WindowState, window_key

_SIZES = np.array(WINDOW_SECONDS, np.int64)
"""Each divides the next, so whoever is too late for a window is too late for all shorter ones."""


def count_lines(
    state: WindowState,
    lines: CostLines,
    event: NDArray[np.intp],
    ends_ns: NDArray[np.int64],
    watermarks_ns: NDArray[np.int64],
    *,
    retention_ns: int,
) -> NDArray[np.bool_]:
    """Count the lines; returns which events came too late for a window, shorter ones first.

    ``event`` says to which event a line belongs; of each event ``ends_ns`` says when it was, and
    ``watermarks_ns`` how far the watermark had come before it.
    """
    seconds = ends_ns // NS_PER_SECOND
    window_ends = (seconds[:, None] // _SIZES + 1) * _SIZES * NS_PER_SECOND
    too_late = (window_ends + retention_ns <= watermarks_ns[:, None]).sum(axis=1)
    tenant, model = lines.coded("tenant"), lines.coded("model")
    cohort = tenant.codes.astype(np.int64) * len(model.values) + model.codes
    slot = (seconds // WINDOW_SECONDS[0])[event]
    late = too_late[event]
    order = np.lexsort((slot, late, cohort))
    keys = np.stack([cohort[order], late[order], slot[order]])
    starts = run_starts(keys)
    sums = [segment_sums(values[order], starts).tolist() for values in _values(lines)]
    for where, group in zip(keys[:, starts].T.tolist(), zip(*sums, strict=True), strict=True):
        place, level, at = where
        name = tenant.values[place // len(model.values)], model.values[place % len(model.values)]
        for size in WINDOW_SECONDS[level:]:
            key = window_key(at * WINDOW_SECONDS[0] * NS_PER_SECOND, size)
            window = state.windows.get(key)
            if window is None:
                window = state.windows[key] = Window()
            _add(window.cohorts.setdefault(name, Tally()), group)
            window.dirty.add(name)
    is_late: NDArray[np.bool_] = too_late > 0
    return is_late


_TALLY = tuple(f.name for f in fields(Tally))


def _add(tally: Tally, sums: Sequence[int]) -> None:
    for name, value in zip(_TALLY, sums, strict=True):
        if value:
            setattr(tally, name, getattr(tally, name) + value)


def _values(lines: CostLines) -> list[Whole]:
    """What each line adds to each field of a tally, in their order."""
    status = lines.coded("status")
    executed = lines.ints("executed").values
    hit = np.array([s == "cache_hit" for s in status.values], np.bool_)[status.codes]
    wasted = np.array([s in WASTED for s in status.values], np.bool_)[status.codes]
    retry_of = lines.coded("retry_of")
    retried = np.array([r is not None for r in retry_of.values], np.bool_)[retry_of.codes]
    counted = executed | hit
    known = lines.ints("cost_usd").known
    priced = counted if known is None else counted & known

    def of(name: str, which: NDArray[np.bool_] = counted) -> Whole:
        values: Whole = np.where(which, lines.ints(name).values, 0)
        return values

    values = {
        "requests": counted.astype(np.int64),
        "retries": (counted & retried).astype(np.int64),
        "unpriced_requests": (counted & ~priced).astype(np.int64),
        "batch_size_sum": of("batch_size"),
        "cost_atto": of("cost_usd", priced),
        "input_cost_atto": of("input_cost_usd", priced),
        "output_cost_atto": of("output_cost_usd", priced),
        "wasted_gpu_ns": of("gpu_ns", counted & wasted),
        "cache_hits": (counted & ~executed).astype(np.int64),
        "refused_requests": (~counted).astype(np.int64),
    }
    for name in (
        "input_tokens", "cached_input_tokens", "output_tokens", "gpu_ns", "input_gpu_ns",
        "output_gpu_ns", "padding_gpu_ns",
    ):  # fmt: skip
        values[name] = of(name)
    return [values[name] for name in _TALLY]

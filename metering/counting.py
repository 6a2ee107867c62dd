"""Priced lines into additions, many at once; held to ``metering.windows.count``, line by line."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metering.additions import TALLY, Additions
from metering.columns import Whole, order_of, run_starts, segment_sums
from metering.lines import CostLines
from metering.usage import WASTED
from metering.windows import NS_PER_SECOND, WINDOW_SECONDS

_SIZES = np.array(WINDOW_SECONDS, np.int64)


def too_late_for(
    ends_ns: NDArray[np.int64], watermarks_ns: NDArray[np.int64], retention_ns: int
) -> NDArray[np.int64]:
    """Of each event, for how many of the window lengths, shorter ones first, it came too late: by
    the watermark before it."""
    # In seconds: the last window of all ends after the last nanosecond that 64 bits hold.
    window_ends = (ends_ns[:, None] // NS_PER_SECOND // _SIZES + 1) * _SIZES
    gone_by = (watermarks_ns - retention_ns) // NS_PER_SECOND
    levels: NDArray[np.int64] = (window_ends <= gone_by[:, None]).sum(axis=1)
    return levels


def additions_of(
    lines: CostLines,
    event: NDArray[np.intp],
    ends_ns: NDArray[np.int64],
    levels: NDArray[np.int64],
) -> Additions:
    """``event`` says to which event a line belongs; of each event ``ends_ns`` says when it was, and
    ``levels`` for how many window lengths it came too late: for all of them adds nothing."""
    tenant, model, region = (lines.coded(name) for name in ("tenant", "model", "region"))
    models, regions = len(model.values), len(region.values)
    cohort = (tenant.codes.astype(np.int64) * models + model.codes) * regions + region.codes
    slot = (ends_ns // NS_PER_SECOND // WINDOW_SECONDS[0])[event]
    level = levels[event]
    order, starts = _runs(cohort, level, slot)
    first = order[starts]
    places, found_levels, slots = cohort[first], level[first], slot[first]
    return Additions(
        [
            (
                tenant.values[place // regions // models],
                model.values[place // regions % models],
                region.values[place % regions],
            )
            for place in places.tolist()
        ],
        slots * WINDOW_SECONDS[0],
        found_levels,
        [_sums(values, order, starts) for values in _values(lines)],
    )


def _runs(
    cohort: NDArray[np.int64], level: NDArray[np.int64], slot: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The lines in the order of all three, without those of the last level; and where in it those
    begin that are alike. Mostly they are few, and make one short key."""
    first = int(slot.min())
    slots = int(slot.max()) - first + 1
    levels = len(WINDOW_SECONDS) + 1
    if (int(cohort.max()) + 1) * levels * slots > 2**16:
        order = np.lexsort((slot, level, cohort))
        keys: NDArray[Any] = np.stack([cohort, level, slot])
    else:
        keys = ((cohort * levels + level) * slots + (slot - first)).astype(np.uint16)[None]
        order = order_of(keys[0], 2**16)
    counted = level < len(WINDOW_SECONDS)
    if not counted.all():
        order = order[counted[order]]
    return order, run_starts(keys[:, order]) if len(order) else np.zeros(0, np.intp)


def _sums(values: Whole, order: NDArray[np.intp], starts: NDArray[np.intp]) -> Whole:
    if not values.any():  # So it is with many of them.
        return np.zeros(len(starts), np.int64)
    return segment_sums(values[order], starts)


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
        values = lines.ints(name).values
        return values if which.all() else np.where(which, values, 0)

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
        "priced_requests": priced.astype(np.int64),
        "priced_input_tokens": of("input_tokens", priced),
        "priced_output_tokens": of("output_tokens", priced),
    }
    for name in (
        "input_tokens", "cached_input_tokens", "output_tokens", "gpu_ns", "input_gpu_ns",
        "output_gpu_ns", "padding_gpu_ns",
    ):  # fmt: skip
        values[name] = of(name)
    return [values[name] for name in TALLY]

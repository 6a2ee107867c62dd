"""What must be left, reckoned anew from the journal, with none of the worker's code.

Integers throughout. The division is Hamilton's, in its obvious form: floors first, then a unit
each to the largest remainders; ties go to the larger weight, then to the earlier request (among a
batch's shares of time first to fewer input tokens, then to fewer output tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.stream_faults.journal import FAILED, LATE, LOGGED, Array, Emitted
from benchmarks.stream_faults.world import (
    BATCH_SIZE,
    COHORT,
    MODELS,
    NS,
    REGIONS,
    TENANTS,
    Source,
    misses,
    nano_price,
)

NS_PER_HOUR = 3_600 * NS
ATTO_PER_NANO = 10**9
LIMB = 10**9
"""Costs are summed in two limbs: an int64 would not hold a day's."""
SUMS = (
    "requests", "unpriced_requests", "batch_size_sum", "input_tokens", "output_tokens",
    "gpu_ns", "input_gpu_ns", "output_gpu_ns", "wasted_gpu_ns",
    "cost_atto", "input_cost_atto", "output_cost_atto",
)  # fmt: skip
Window = tuple[Any, ...]
"""Length and start in seconds, then what ``COHORT`` names."""
Sums = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Expected:
    """Of every request, in the journal's order; costs in attodollars, 0 if not ``priced``."""

    emitted: Emitted
    gpu_ns: Array
    input_gpu_ns: Array
    priced: Array
    cost: Array
    input_cost: Array

    def of_batch(self, field: str) -> Array:
        """A field of the batch, for each request."""
        return np.repeat(self.emitted.batches[field], BATCH_SIZE)

    def of_source(self, values: Sequence[Any]) -> Array:
        """A value of the source, for each request."""
        return np.array(values)[self.of_batch("source")]


def divided(whole: int, weights: Sequence[int], ties: Sequence[Any] | None = None) -> list[int]:
    """Parts that sum to ``whole``."""
    total = sum(weights)
    if total == 0:
        weights, total = [1] * len(weights), len(weights)
    parts, rests = [], []
    for weight in weights:
        part, rest = divmod(whole * weight, total)
        parts.append(part)
        rests.append(rest)
    left = whole - sum(parts)
    if left:
        own = range(len(weights)) if ties is None else ties
        ranking = sorted(range(len(weights)), key=lambda i: (-rests[i], -weights[i], own[i], i))
        for i in ranking[:left]:
            parts[i] += 1
    return parts


def whole_cost(gpu_ns: int, nano_per_hour: int) -> int:
    """In attodollars, rounded half to even."""
    exact = gpu_ns * nano_per_hour * ATTO_PER_NANO
    cost, rest = divmod(exact, NS_PER_HOUR)
    return cost + (2 * rest > NS_PER_HOUR or (2 * rest == NS_PER_HOUR and cost % 2))


def expect(emitted: Emitted) -> Expected:
    requests = emitted.requests
    expected = Expected(
        emitted,
        requests["gpu_ns"].copy(),
        requests["input_gpu_ns"].copy(),
        np.zeros(len(requests), np.bool_),
        np.zeros(len(requests), np.int64),
        np.zeros(len(requests), np.int64),
    )
    for number, batch in enumerate(emitted.batches.tolist()):
        own = slice(number * BATCH_SIZE, (number + 1) * BATCH_SIZE)
        source, _, flags, end_ns, _, gpu_ns = batch
        if flags & LOGGED:
            _share(expected, own, gpu_ns)
        _price(expected, own, emitted.sources[source], end_ns >= emitted.change_s * NS)
    return expected


def _share(expected: Expected, own: slice, gpu_ns: int) -> None:
    """By tokens, as the rule says that stands in the record."""
    requests = expected.emitted.requests[own]
    tokens = list(
        zip(requests["input_tokens"].tolist(), requests["output_tokens"].tolist(), strict=True)
    )
    shares = divided(gpu_ns, [into + out for into, out in tokens], tokens)
    expected.gpu_ns[own] = shares
    expected.input_gpu_ns[own] = [
        divided(share, both)[0] for share, both in zip(shares, tokens, strict=True)
    ]


def _price(expected: Expected, own: slice, source: Source, changed: bool) -> None:
    nano = nano_price(source.model, source.region, changed)
    if nano is None:
        return
    times = expected.gpu_ns[own].tolist()
    into = expected.input_gpu_ns[own].tolist()
    costs = divided(whole_cost(sum(times), nano), times)
    expected.priced[own] = True
    expected.cost[own] = costs
    expected.input_cost[own] = [
        divided(cost, (i, whole - i))[0] for cost, i, whole in zip(costs, into, times, strict=True)
    ]


def windows(expected: Expected, seconds: int) -> dict[Window, Sums]:
    """Every window of that length: what must have been counted in it."""
    counts = _counts(expected, seconds)
    second = expected.of_batch("end_ns") // NS
    start = (second - second % seconds)[counts]
    sources = expected.emitted.sources
    names = {
        "tenant": (TENANTS, expected.emitted.requests["tenant"].astype(np.int64)),
        "model": (MODELS, expected.of_source([MODELS.index(s.model) for s in sources])),
        "region": (REGIONS, expected.of_source([REGIONS.index(s.region) for s in sources])),
    }
    codes = [names[column][1][counts] for column in COHORT]
    order = np.lexsort((*codes, start))
    keys = np.stack([start, *codes])[:, order]
    if not keys.size:
        return {}
    begins = np.flatnonzero(np.r_[True, (keys[:, 1:] != keys[:, :-1]).any(axis=0)])
    columns = [
        np.add.reduceat(values[counts][order], begins).tolist() for values in _addends(expected)
    ]
    found: dict[Window, Sums] = {}
    for key, sums in zip(keys[:, begins].T.tolist(), zip(*columns, strict=True), strict=True):
        cohort = (names[column][0][code] for column, code in zip(COHORT, key[1:], strict=True))
        plain, limbs = sums[:-6], sums[-6:]
        money = [limbs[n] * LIMB + limbs[n + 1] for n in (0, 2, 4)]
        found[seconds, key[0], *cohort] = (*plain, *money)
    return found


def _counts(expected: Expected, seconds: int) -> Array:
    """Which requests are not too late for their window of that length."""
    batches = expected.emitted.batches
    counts = np.ones(len(batches), np.bool_)
    for n in np.flatnonzero(batches["flags"] & LATE).tolist():
        counts[n] = not misses(int(batches["end_ns"][n]), int(batches["sent_ns"][n]), seconds)
    return np.repeat(counts, BATCH_SIZE)


def _addends(expected: Expected) -> list[Array]:
    """In the order of ``SUMS``; each cost in two limbs."""
    requests = expected.emitted.requests
    one = np.ones(len(requests), np.int64)
    failed = (expected.of_batch("flags") & FAILED) > 0
    output_ns = expected.gpu_ns - expected.input_gpu_ns
    output_cost = expected.cost - expected.input_cost
    plain = [
        one, (~expected.priced).astype(np.int64), one * BATCH_SIZE,
        requests["input_tokens"].astype(np.int64), requests["output_tokens"].astype(np.int64),
        expected.gpu_ns, expected.input_gpu_ns, output_ns, np.where(failed, expected.gpu_ns, 0),
    ]  # fmt: skip
    limbs = [
        limb
        for cost in (expected.cost, expected.input_cost, output_cost)
        for limb in (cost // LIMB, cost % LIMB)
    ]
    return plain + limbs

"""Priced lines as Prometheus counts them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metering.lines import CostLines
from metering.money import ATTO_PER_USD
from sinks.prometheus import WorkerMetrics


def count_lines(metrics: WorkerMetrics, lines: CostLines) -> None:
    if lines.count == 0:
        return
    model, status = lines.coded("model"), lines.coded("pricing_status")
    few = len(status.values)
    pairs = np.bincount(model.codes * few + status.codes, minlength=len(model.values) * few)
    priced = set()
    for n in np.flatnonzero(pairs).tolist():
        name, price = model.values[n // few], status.values[n % few]
        metrics.requests.labels(metrics.model(name), price).inc(int(pairs[n]))
        if price == "priced":
            priced.add(name)

    invalid = np.zeros(lines.count, np.bool_)
    for name in ("invalid", "batch_invalid"):
        texts = lines.coded(name)
        invalid |= np.array([text != "" for text in texts.values], np.bool_)[texts.codes]
    if invalid.any():
        marked = np.bincount(model.codes[invalid], minlength=len(model.values))
        for n in np.flatnonzero(marked).tolist():
            metrics.invalid.labels(metrics.model(model.values[n])).inc(int(marked[n]))

    def sums(name: str) -> NDArray[Any]:
        column = lines.ints(name)
        values = column.values.astype(np.float64)
        if column.known is not None:
            values = np.where(column.known, values, 0.0)
        found: NDArray[np.float64] = np.bincount(model.codes, values, len(model.values)).astype(
            float
        )
        return found

    totals = (sums("input_tokens"), sums("output_tokens"), sums("gpu_ns"), sums("cost_usd"))
    for name, inputs, outputs, gpu_ns, atto in zip(model.values, *totals, strict=True):
        shown = metrics.model(name)
        metrics.tokens.labels(shown, "input").inc(inputs)
        metrics.tokens.labels(shown, "output").inc(outputs)
        metrics.gpu_seconds.labels(shown).inc(gpu_ns / 1e9)
        if name in priced:
            metrics.cost_usd.labels(shown).inc(atto / ATTO_PER_USD)

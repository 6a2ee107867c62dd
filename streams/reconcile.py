"""Stored usage against the running Triton's own counters, now and once.

The same comparison as the reconciler's, which does it with every heartbeat.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from metering.capacity import CapacityHeartbeat, ModelCounters
from metering.cloudevents import rfc3339
from metering.reconciliation import OUTCOMES, Comparison, Verdict
from sinks.clickhouse.capacity import CapacityReader
from streams.reconciler.judging import Judging
from streams.sentinel.boots import Boot
from streams.sentinel.counters import Counters, ask_counters
from streams.sentinel.triton import TritonCounters
from streams.settings import Settings
from streams.targets import clickhouse_target


async def reconcile(settings: Settings) -> list[Verdict]:
    """One per model that Triton has loaded, since it was loaded.

    Which server that is, the usage log of this host says; where it is not here, ClickHouse: the one
    whose usage of the model came last.

    Raises:
        MeteringError: Triton or ClickHouse does not answer.
    """
    async with TritonCounters(settings) as triton:
        counters = await ask_counters(settings.log_dir, triton.ask)
    return await asyncio.to_thread(_judge, settings, counters)


def _judge(settings: Settings, counters: Counters) -> list[Verdict]:
    target = clickhouse_target(settings)
    judging, reader = Judging(target), CapacityReader(target)
    try:
        by_boot = _by_boot(counters, reader)
        beats = [_beat(boot, models, counters) for boot, models in by_boot.items()]
        verdicts = [verdict for beat in beats for verdict in judging.judge(beat)]
    finally:
        judging.close()
        reader.close()
    return sorted(verdicts, key=lambda v: (v.model, v.version))


def _by_boot(counters: Counters, reader: CapacityReader) -> dict[Boot, list[ModelCounters]]:
    if counters.boot is not None:
        return {counters.boot: list(counters.models)}
    last = reader.last_boots()
    found: dict[Boot, list[ModelCounters]] = defaultdict(list)
    for model in counters.models:
        found[Boot("unknown", last.get(model.model, "unknown"))].append(model)
    return found


def _beat(boot: Boot, models: Sequence[ModelCounters], counters: Counters) -> CapacityHeartbeat:
    return CapacityHeartbeat(
        source=f"{boot.host}/reconcile",
        sequence=time.monotonic_ns(),
        host=boot.host,
        boot_id=boot.boot_id,
        time_ns=counters.time_ns,
        asked_ns=counters.asked_ns,
        triton_answers=True,
        models=tuple(models),
    )


def by_model(verdicts: Sequence[Verdict]) -> dict[str, dict[str, Any]]:
    """For machines. Versions are told apart where a model has several."""
    names = [v.model for v in verdicts]
    return {
        v.model if names.count(v.model) == 1 else f"{v.model}/{v.version}": as_json(v)
        for v in verdicts
    }


def earlier_json(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Of servers and loads of models that are gone: who they were, and the same as of today's."""
    return [
        {
            "host": v.host,
            "boot_id": v.boot_id,
            "model": v.model,
            "version": v.version,
            "compared_at": rfc3339(v.time_ns),
            **as_json(v),
        }
        for v in verdicts
    ]


def as_json(verdict: Verdict) -> dict[str, Any]:
    sides = {c.quantity: _sides(c) for c in verdict.comparisons}
    outcomes = {c.quantity: _parts(c) for c in verdict.comparisons if c.quantity in OUTCOMES}
    return {
        **{name: sides[name] for name in ("executions", "rows", "gpu_ns")},
        "gpu_ns_may_be_missing": verdict.part("gpu_ns", "allowed"),
        "outcomes": outcomes,
        "answered_with_error": verdict.errors,
        "cancelled": verdict.cancelled,
        "requests": verdict.requests,
        "attributed": verdict.attributed,
        "inferred": verdict.inferred,
        "missing": verdict.missing,
        "uncounted": verdict.uncounted,
        "coverage_percent": f"{verdict.coverage_percent:.2f}",
        "discrepancies": list(verdict.discrepancies),
        "agrees": verdict.agrees,
    }


def _sides(comparison: Comparison) -> dict[str, int]:
    return {"server": comparison.server, "metered": comparison.metered}


def _parts(comparison: Comparison) -> dict[str, int]:
    return {
        **_sides(comparison),
        "inferred": comparison.inferred,
        "missing": comparison.missing,
        "surplus": comparison.surplus,
    }

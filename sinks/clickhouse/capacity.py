"""Writes of heartbeats and verdicts; and the two questions that reconciling asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from metering.capacity import (
    BatchStats,
    CapacityHeartbeat,
    DeviceCapacity,
    Failures,
    InstanceCapacity,
    ModelCounters,
)
from metering.counted import Part, Question
from metering.reconciliation import OUTCOMES, Tally, Verdict
from metering.usage import LATEST
from sinks.clickhouse.queries import ClickHouseReader
from sinks.clickhouse.writer import ClickHouseWriter, Column

Key = tuple[str, str]
"""Model and version."""

_DEVICE = tuple(f for f in DeviceCapacity.model_fields if f != "read_ns")
_INSTANCE = tuple(f for f in InstanceCapacity.model_fields if f != "source")
_STORED = """
SELECT model,
    if(model_version = {latest:String},
        transform(model, {models:Array(String)}, {newest:Array(String)}, model_version),
        model_version) AS version,
    multiIf(time <= fromUnixTimestamp64Nano({before:Int64}), 'between',
        time <= fromUnixTimestamp64Nano({settles:Int64}), 'settled',
        time <= fromUnixTimestamp64Nano({early:Int64}), 'early', 'late') AS part,
    countIf(executed AND position = 0), sumIf(toUInt128(rows), executed),
    sumIf(toUInt128(multiIf(batch_wall_ns = 0, gpu_ns, position = 0, batch_wall_ns, 0)), executed),
    countIf(status IN ('ok', 'error', 'cancelled')), countIf(status = 'failed'),
    countIf(status = 'cache_hit'), countIf(status = 'timed_out'),
    countIf(status = 'cancelled_in_queue'), countIf(status = 'rejected'),
    uniqExactIf(source, executed), countIf(status = 'error'), countIf(status = 'cancelled')
FROM cost_requests
WHERE boot_id = {boot:String} AND has({models:Array(String)}, model)
    AND time > fromUnixTimestamp64Nano({after:Int64})
    AND time <= fromUnixTimestamp64Nano({asked:Int64})
GROUP BY model, version, part
"""
_LAST_VERDICTS = """
SELECT argMax(verdict, time) FROM reconciliations
WHERE boot_id = {boot:String} GROUP BY model, model_version
"""
_DISAGREED = """
SELECT argMax(verdict, time) FROM reconciliations
GROUP BY boot_id, model, model_version, JSONExtractInt(verdict, 'counted_after_ns')
HAVING NOT argMax(agrees, time)
ORDER BY max(time) DESC LIMIT {most:UInt32}
"""
_COUNTERS = """
SELECT successes, cache_hits, cache_misses, queue_ns, failures_rejected, failures_cancelled,
    failures_backend, failures_other, batch_stats
FROM capacity_models
WHERE boot_id = {boot:String} AND model = {model:String} AND model_version = {version:String}
    AND time = fromUnixTimestamp64Nano({time:Int64})
LIMIT 1
"""
_LAST_BOOTS = """
SELECT model, argMax(boot_id, time) FROM cost_requests GROUP BY model
"""


class CapacityWriter(ClickHouseWriter):
    """As its base: what is repeated changes nothing, and SinkUnavailable means: write it again."""

    def write_heartbeats(self, beats: Sequence[CapacityHeartbeat]) -> None:
        self._insert(
            "capacity_device_beats", [(b, d) for b in beats for d in b.devices], _device_columns
        )
        self._insert(
            "capacity_instance_beats",
            [(b, i) for b in beats for i in b.instances],
            _instance_columns,
        )
        self._insert(
            "capacity_model_beats", [(b, m) for b in beats for m in b.models], _model_columns
        )

    def write_verdicts(self, verdicts: Sequence[Verdict], judged_ns: int) -> None:
        self._insert(
            "reconciliation_rows",
            verdicts,
            lambda rows: [*_verdict_columns(rows), ("judged", [judged_ns] * len(rows))],
        )


class CapacityReader(ClickHouseReader):
    """Errors of ClickHouse come as QueryFailed."""

    def stored_of(
        self, boot_id: str, newest: Mapping[str, str], question: Question
    ) -> dict[Key, dict[Part, Tally]]:
        """Of one server, by model and version; a part without anything is left out.

        ``newest`` is each model's highest version: that of lines whose front named none.
        """
        parameters = {
            "boot": boot_id,
            "models": list(newest),
            "newest": list(newest.values()),
            "latest": LATEST,
            "after": question.after_ns,
            "before": question.before_ns,
            "settles": question.settles_ns,
            "early": question.early_ns,
            "asked": question.asked_ns,
        }
        found: dict[Key, dict[Part, Tally]] = {}
        for model, version, part, *counts in self.rows(_STORED, parameters):
            found.setdefault((model, version), {})[part] = Tally(*counts)
        return found

    def last_verdicts(self, boot_id: str) -> dict[Key, Verdict]:
        rows = self.rows(_LAST_VERDICTS, {"boot": boot_id})
        verdicts = [Verdict.model_validate_json(text) for (text,) in rows]
        return {(v.model, v.version): v for v in verdicts}

    def disagreed(self, most: int) -> list[Verdict]:
        """The last verdict of each stretch of counters, of any server, where it did not agree; the
        newest first. A stretch ends when the server does, or when its model is loaded again."""
        rows = self.rows(_DISAGREED, {"most": most})
        return [Verdict.model_validate_json(text) for (text,) in rows]

    def counters_of(self, verdict: Verdict) -> ModelCounters | None:
        """Those that the verdict is on, as the heartbeat told them; ``None``: they are not kept."""
        at = {"boot": verdict.boot_id, "model": verdict.model, "version": verdict.version}
        for row in self.rows(_COUNTERS, {**at, "time": verdict.time_ns}):
            successes, hits, misses, queue_ns, *failures, batches = row
            names = ("rejected", "cancelled", "backend", "other")
            return ModelCounters(
                model=verdict.model,
                version=verdict.version,
                successes=successes,
                failures=None
                if None in failures
                else Failures(**dict(zip(names, failures, strict=True))),
                cache_hits=hits,
                cache_misses=misses,
                queue_ns=queue_ns,
                batch_stats=tuple(_batch(b) for b in batches),
            )
        return None

    def last_boots(self) -> dict[str, str]:
        """By model, the server whose usage came last."""
        return dict(self.rows(_LAST_BOOTS))


def _batch(row: Any) -> BatchStats:
    """A named tuple comes as a dictionary, or as a tuple."""
    values = row.values() if isinstance(row, dict) else row
    size, executions, infer_ns = values
    return BatchStats(size=size, executions=executions, compute_infer_ns=infer_ns)


def _common(beats: Sequence[CapacityHeartbeat]) -> list[Column]:
    return [
        ("time", [b.time_ns for b in beats]),
        ("source", [b.source for b in beats]),
        ("sequence", [b.sequence for b in beats]),
        ("host", [b.host for b in beats]),
        ("boot_id", [b.boot_id or "" for b in beats]),
    ]


def _device_columns(rows: Sequence[tuple[CapacityHeartbeat, DeviceCapacity]]) -> list[Column]:
    return [
        *_common([beat for beat, _ in rows]),
        ("read", [b.time_ns if d.read_ns is None else d.read_ns for b, d in rows]),
        *((name, [getattr(device, name) for _, device in rows]) for name in _DEVICE),
    ]


def _instance_columns(rows: Sequence[tuple[CapacityHeartbeat, InstanceCapacity]]) -> list[Column]:
    return [
        *_common([beat for beat, _ in rows]),
        ("instance_source", [instance.source for _, instance in rows]),
        *((name, [getattr(instance, name) for _, instance in rows]) for name in _INSTANCE),
    ]


def _model_columns(rows: Sequence[tuple[CapacityHeartbeat, ModelCounters]]) -> list[Column]:
    models = [model for _, model in rows]
    same = ("model", "executions", "rows", "successes", "cache_hits", "cache_misses", "queue_ns")
    return [
        *_common([beat for beat, _ in rows]),
        ("asked", [beat.asked_ns for beat, _ in rows]),
        *((name, [getattr(m, name) for m in models]) for name in same),
        ("model_version", [m.version for m in models]),
        ("compute_infer_ns", [m.gpu_ns for m in models]),
        *(
            (
                f"failures_{reason}",
                [None if m.failures is None else getattr(m.failures, reason) for m in models],
            )
            for reason in ("rejected", "cancelled", "backend", "other")
        ),
        (
            "batch_stats",
            [[(b.size, b.executions, b.compute_infer_ns) for b in m.batch_stats] for m in models],
        ),
    ]


def _verdict_columns(verdicts: Sequence[Verdict]) -> list[Column]:
    same = (
        "host", "boot_id", "model", "agrees", "coverage_percent", "requests", "attributed",
        "inferred", "missing", "missing_executions",
    )  # fmt: skip
    return [
        ("time", [v.time_ns for v in verdicts]),
        ("model_version", [v.version for v in verdicts]),
        *((name, [getattr(v, name) for v in verdicts]) for name in same),
        ("server_executions", [v.part("executions", "server") for v in verdicts]),
        ("missing_rows", [v.part("rows", "missing") for v in verdicts]),
        ("missing_gpu_ns", [v.part("gpu_ns", "missing") for v in verdicts]),
        ("inferred_by_outcome", [_by_outcome(v, "inferred") for v in verdicts]),
        ("missing_by_outcome", [_by_outcome(v, "missing") for v in verdicts]),
        (
            "surplus",
            [{c.quantity: c.surplus for c in v.comparisons if c.surplus} for v in verdicts],
        ),
        ("confirmed", [list(v.confirmed) for v in verdicts]),
        ("verdict", [v.model_dump_json() for v in verdicts]),
    ]


def _by_outcome(verdict: Verdict, part: Literal["inferred", "missing"]) -> dict[str, int]:
    found = {outcome: verdict.part(outcome, part) for outcome in OUTCOMES}
    return {outcome: n for outcome, n in found.items() if n}

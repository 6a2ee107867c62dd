"""What a host could do and did: one event every few seconds, with counters that only grow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import Field, model_validator

from metering.usage import EpochNs, Frozen, Name

MOST_COUNT = 2**63 - 1
Count = Annotated[int, Field(ge=0, lt=2**63)]
"""Sums over the life of a server."""
Batches = Annotated[int, Field(ge=0, lt=2**32)]
Label = Annotated[str, Field(max_length=256)]


class DeviceCapacity(Frozen):
    """One accelerator since its board was begun; ``busy_ns`` is the union of its batches.

    ``boot`` is the machine's boot: a sum begins anew with it. ``lost_ns`` is the part of
    ``busy_ns`` of batches whose process died in the middle. ``running``: batches just now.
    ``board`` is the identity of the board that counts, so that two boards of one device are told
    apart; empty where the sentinel is older than that. The board was read at ``read_ns``.
    """

    device: Label
    accelerator: Label
    boot: Label
    wall_ns: Count
    busy_ns: Count
    idle_ns: Count
    lost_ns: Count = 0
    running: Batches
    board: Label = ""
    read_ns: EpochNs | None = None

    @model_validator(mode="after")
    def _wall_is_busy_and_idle(self) -> Self:
        if self.busy_ns + self.idle_ns != self.wall_ns:
            raise ValueError(
                f"busy_ns={self.busy_ns} + idle_ns={self.idle_ns} is not wall_ns={self.wall_ns}"
            )
        return self


class InstanceCapacity(Frozen):
    """One model instance since it began. ``busy_ns`` is its share of the device; ``idle_ns`` is
    its wall time less its batches', ``batch_ns``, which overlap with those of its neighbours. The
    batch that runs is part of ``batch_ns`` as far as it has come."""

    source: Name
    model: Name
    device: Label
    wall_ns: Count
    busy_ns: Count
    batch_ns: Count
    idle_ns: Count
    executions: Count


class Failures(Frozen):
    """Requests that Triton says have failed, by its own reasons.

    ``rejected`` has those that waited too long in the queue. A request that found the queue full
    is counted nowhere. These counters live as long as the server, and do not begin anew when a
    model is loaded again, as the others do (all tried on 2.51).
    """

    rejected: Count = 0
    cancelled: Count = 0
    backend: Count = 0
    other: Count = 0

    def since(self, before: Failures) -> Failures:
        """What has come since then; all of it where the counters have begun anew."""
        gone = {n: getattr(self, n) - getattr(before, n) for n in type(self).model_fields}
        return self if min(gone.values()) < 0 else Failures(**gone)


class BatchStats(Frozen):
    """Executions of one size, in rows. An execution counts once, however many requests it had."""

    size: Count
    executions: Count
    compute_infer_ns: Count


class ModelCounters(Frozen):
    """Triton's own counters of one version of a model, since it was loaded; but ``failures``.

    ``successes`` are requests: executed ones, be their answer an error, and cache hits.
    ``failures`` is ``None`` where the metrics endpoint did not answer.
    """

    model: Name
    version: Name
    successes: Count
    failures: Failures | None
    cache_hits: Count
    cache_misses: Count
    queue_ns: Count
    batch_stats: tuple[BatchStats, ...]

    @model_validator(mode="after")
    def _sums_fit(self) -> Self:
        failures = Failures() if self.failures is None else self.failures
        sums = {
            "requests": self.successes + self.cache_hits + sum(dict(failures).values()),
            "executions": self.executions,
            "rows": self.rows,
            "compute_infer_ns": self.gpu_ns,
        }
        for name, total in sums.items():
            if total > MOST_COUNT:
                raise ValueError(f"{name} of {self.model!r} sum to {total}: want below 2^63")
        return self

    @property
    def executions(self) -> int:
        return sum(b.executions for b in self.batch_stats)

    @property
    def rows(self) -> int:
        return sum(b.size * b.executions for b in self.batch_stats)

    @property
    def gpu_ns(self) -> int:
        return sum(b.compute_infer_ns for b in self.batch_stats)


class CapacityHeartbeat(Frozen):
    """``(source, sequence)`` identifies it for ever.

    The counters were asked for after ``time_ns`` and had come by ``asked_ns``. They are of the one
    server that lives on the host, whose start is ``boot_id``. Where that can't be told, ``boot_id``
    is ``None`` and there are no ``models``: no counters are claimed.
    """

    source: Name
    sequence: Annotated[int, Field(ge=0, lt=2**63)]
    host: Name
    boot_id: Name | None
    time_ns: EpochNs
    asked_ns: EpochNs
    triton_answers: bool
    devices: tuple[DeviceCapacity, ...] = ()
    instances: tuple[InstanceCapacity, ...] = ()
    models: tuple[ModelCounters, ...] = ()

    @model_validator(mode="after")
    def _counters_belong_to_a_server(self) -> Self:
        if self.asked_ns < self.time_ns:
            raise ValueError(f"asked_ns={self.asked_ns} is before time_ns={self.time_ns}")
        if self.models and (self.boot_id is None or not self.triton_answers):
            raise ValueError(
                f"models though boot_id={self.boot_id!r}, triton_answers={self.triton_answers}"
            )
        return self


def newest_versions(models: Iterable[ModelCounters]) -> dict[str, str]:
    """Each model's highest version, which Triton takes where none is asked for."""
    newest: dict[str, str] = {}
    for counters in models:
        known = newest.setdefault(counters.model, counters.version)
        newest[counters.model] = max(known, counters.version, key=lambda v: (len(v), v))
    return newest

"""The reconciler's order of things: stored, judged, told, committed; and tried until taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka.structs import OffsetAndMetadata
from prometheus_client import CollectorRegistry

from metering.capacity import BatchStats, CapacityHeartbeat, Failures, ModelCounters
from metering.errors import SinkUnavailable
from metering.reconciliation import Bounds, Snapshot, Verdict, judge
from sinks.prometheus import ReconcilerMetrics
from streams.publisher import Record
from streams.reconciler import app
from streams.reconciler.app import Reconciler
from streams.settings import Settings

NS = 10**9
COUNTERS = ModelCounters(
    model="m", version="1", successes=1, failures=Failures(), cache_hits=0, cache_misses=0,
    queue_ns=0, batch_stats=(BatchStats(size=1, executions=1, compute_infer_ns=10),),
)  # fmt: skip


@dataclass
class Message:
    offset: int
    value: bytes


def beat(at_s: int) -> CapacityHeartbeat:
    return CapacityHeartbeat(
        source="h/b/sentinel", sequence=at_s, host="h", boot_id="b", time_ns=at_s * NS,
        asked_ns=at_s * NS, triton_answers=True, models=(COUNTERS,),
    )  # fmt: skip


class World:
    """ClickHouse, Kafka and the core in one; each fails ``failures`` times before it takes."""

    def __init__(self, failures: int = 0) -> None:
        self.done: list[tuple[str, Any]] = []
        self._left = {"heartbeats": failures, "judge": failures, "verdicts": failures}

    def _do(self, name: str, what: object) -> None:
        if self._left.get(name, 0):
            self._left[name] -= 1
            raise SinkUnavailable(name, 1, "away")
        self.done.append((name, what))

    def write_heartbeats(self, beats: list[CapacityHeartbeat]) -> None:
        self._do("heartbeats", [b.sequence for b in beats])

    def judge(self, heard: CapacityHeartbeat) -> list[Verdict]:
        self._do("judge", heard.sequence)
        at = Snapshot(host="h", boot_id="b", time_ns=heard.time_ns, asked_ns=heard.asked_ns)
        return [judge(at, COUNTERS, Bounds())]

    def write_verdicts(self, verdicts: list[Verdict], judged_ns: int) -> None:
        self._do("verdicts", len(verdicts))

    async def publish(self, records: list[Record]) -> None:
        self._do("published", [r.topic for r in records])

    async def commit(self, offsets: dict[object, OffsetAndMetadata]) -> None:
        self._do("commit", *(at.offset for at in offsets.values()))


def reconciler(world: World, registry: CollectorRegistry) -> Reconciler:
    metrics = ReconcilerMetrics(registry)
    made = Reconciler(Settings(), world, world, world, metrics)  # type: ignore[arg-type]  # a fake
    made._consumer = world
    return made


def messages(*at_s: int) -> list[Message]:
    return [Message(n, beat(s).model_dump_json().encode()) for n, s in enumerate(at_s)]


@pytest.mark.parametrize("failures", [0, 2])
async def test_an_offset_is_committed_after_what_lay_there_is_stored_judged_and_told(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "RETRY_FIRST_S", 0.001)
    world, registry = World(failures), CollectorRegistry()
    made = reconciler(world, registry)
    await made._store([*messages(1, 2, 8), Message(3, b"no heartbeat")])
    await made._judge(5 * NS)
    await made._judge(13 * NS)
    assert world.done == [
        ("heartbeats", [1, 2, 8]),
        ("judge", 2),
        ("verdicts", 1),
        ("published", ["usage.reconciliation.v1"]),
        ("commit", 2),
    ]
    await made._judge(13 * NS)
    assert world.done[-1] == ("commit", 2), "nothing new is ripe"
    await made._judge(18 * NS)
    assert world.done[5:] == [
        ("judge", 8), ("verdicts", 1), ("published", ["usage.reconciliation.v1"]), ("commit", 4),
    ]  # fmt: skip
    missing = "meter_reconciliation_missing_executions"
    assert registry.get_sample_value(missing, {"model": "m"}) == 1
    assert registry.get_sample_value("meter_reconciliation_discrepancies_total") is None

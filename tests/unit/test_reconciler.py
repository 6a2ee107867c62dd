"""The reconciler's order of things: stored, judged, told, committed; and tried until taken."""

from __future__ import annotations

import json
import time
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
    value: bytes | None
    timestamp: int | None = 1000 * 1000
    timestamp_type: int = 1
    headers: tuple[tuple[str, bytes | None], ...] = ()
    key: bytes | None = None


def beat(at_s: int) -> CapacityHeartbeat:
    return CapacityHeartbeat(
        source="h/b/sentinel", sequence=at_s, host="h", boot_id="b", time_ns=at_s * NS,
        asked_ns=at_s * NS, triton_answers=True, models=(COUNTERS,),
    )  # fmt: skip


class World:
    """ClickHouse, Kafka and the core in one; each fails ``failures`` times before it takes."""

    def __init__(self, failures: int = 0) -> None:
        self.done: list[tuple[str, Any]] = []
        self.records: list[Record] = []
        self.breaks_at = -1
        self.judges = True
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
        if heard.sequence == self.breaks_at:
            raise ZeroDivisionError
        if not self.judges:
            return []
        at = Snapshot(host="h", boot_id="b", time_ns=heard.time_ns, asked_ns=heard.asked_ns)
        return [judge(at, COUNTERS, Bounds())]

    def write_verdicts(self, verdicts: list[Verdict], judged_ns: int) -> None:
        self._do("verdicts", len(verdicts))

    async def publish(self, records: list[Record]) -> None:
        self._do("published", [r.topic for r in records])
        self.records += records

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
        ("published", ["usage.dlq.v1"]),
        ("judge", 2),
        ("verdicts", 1),
        ("published", ["usage.reconciliation.v1"]),
        ("commit", 2),
    ]
    await made._judge(13 * NS)
    assert world.done[-1] == ("commit", 2), "nothing new is ripe"
    await made._judge(18 * NS)
    assert world.done[6:] == [
        ("judge", 8), ("verdicts", 1), ("published", ["usage.reconciliation.v1"]), ("commit", 4),
    ]  # fmt: skip
    missing = "meter_reconciliation_missing_executions"
    assert registry.get_sample_value(missing, {"model": "m"}) == 1
    assert registry.get_sample_value("meter_reconciliation_discrepancies_total") is None


YEAR_S = 365 * 86_400
NOW_S = 1_780_000_000


def hostile_values() -> dict[str, tuple[bytes | None, str]]:
    """What may come, and why it is refused; the broker's stamp is that of now."""
    sound = beat(NOW_S).model_dump(mode="json")
    counters = COUNTERS.model_dump(mode="json")
    device = {
        "device": "d", "accelerator": "a", "boot": "b", "wall_ns": 1, "busy_ns": 1, "idle_ns": 0,
        "running": 1,
    }  # fmt: skip

    def of(**changes: Any) -> bytes:
        return json.dumps(sound | changes).encode()

    def model(**changes: Any) -> bytes:
        return of(models=[counters | changes])

    most = 2**63 - 1
    stats = {"size": most, "executions": most, "compute_infer_ns": most}
    return {
        "a year ahead": (beat(NOW_S + YEAR_S).model_dump_json().encode(), "from-the-future"),
        "asked a year ahead": (of(asked_ns=(NOW_S + YEAR_S) * NS), "from-the-future"),
        "the last moment": (of(time_ns=most, asked_ns=most), "from-the-future"),
        "a board read ahead": (
            of(devices=[device | {"read_ns": (NOW_S + YEAR_S) * NS}]), "from-the-future",
        ),
        "beyond the last moment": (of(time_ns=2**63, asked_ns=2**63), "invalid"),
        "before 1970": (of(time_ns=-1), "invalid"),
        "a time that is text": (of(time_ns="now"), "invalid"),
        "a time that is a fraction": (of(time_ns=1e18), "invalid"),
        "no number": (b'{"time_ns": NaN}', "invalid"),
        "a sequence beyond 63 bits": (of(sequence=2**63), "invalid"),
        "a negative sequence": (of(sequence=-1), "invalid"),
        "a number of 5,000 digits": (b'{"sequence": ' + b"9" * 5000 + b"}", "malformed"),
        "asked before": (of(asked_ns=0), "invalid"),
        "executions whose sum leaves 63 bits": (
            model(batch_stats=[stats | {"size": 1, "compute_infer_ns": 0}] * 2), "invalid",
        ),
        "rows whose product leaves 63 bits": (model(batch_stats=[stats]), "invalid"),
        "requests whose sum leaves 63 bits": (
            model(successes=most, failures={"backend": most}), "invalid",
        ),
        "too many batches at once": (of(devices=[device | {"running": 2**32}]), "invalid"),
        "idle that is not wall less busy": (of(devices=[device | {"idle_ns": 5}]), "invalid"),
        "no host": (of(host=""), "invalid"),
        "a long host": (of(host="h" * 257), "invalid"),
        "models of nobody": (of(boot_id=None), "invalid"),
        "nothing": (None, "malformed"),
        "an empty value": (b"", "malformed"),
        "a list": (b"[]", "invalid"),
        "null": (b"null", "invalid"),
        "half of a surrogate": (b'{"host": "\\ud800"}', "malformed"),
        "not UTF-8": (b'{"host": "\xff"}', "malformed"),
        "nested": (b"[" * 100_000, "malformed"),
    }  # fmt: skip


async def kept_by(world: World, registry: CollectorRegistry, *messages: Message) -> Reconciler:
    made = reconciler(world, registry)
    await made._store(list(messages))
    await made._judge(time.time_ns() + 3600 * NS)
    return made


@pytest.mark.parametrize("name", hostile_values())
async def test_a_hostile_heartbeat_becomes_a_dead_letter_and_its_offset_is_committed(
    name: str,
) -> None:
    value, reason = hostile_values()[name]
    world, registry = World(), CollectorRegistry()
    sound = beat(NOW_S).model_dump_json().encode()
    stamp_ms = NOW_S * 1000
    await kept_by(
        world, registry, Message(7, value, stamp_ms), Message(8, sound, stamp_ms)
    )  # fmt: skip
    (letter,) = [r for r in world.records if r.topic == "usage.dlq.v1"]
    headers = dict(letter.headers)
    assert letter.value == (value or b"")
    assert headers["meter_reason"].decode() == reason
    assert headers["ce_id"] == b"usage.capacity.v1/0@7"
    assert headers["meter_topic"] == b"usage.capacity.v1"
    assert world.done[0] == ("heartbeats", [NOW_S])
    assert world.done[-1] == ("commit", 9)
    refused = "meter_reconciler_refused_heartbeats_total"
    assert registry.get_sample_value(refused, {"reason": reason}) == 1


@pytest.mark.parametrize(
    ("headers", "is_refused"),
    [
        ([("ce_id", None), ("ce_source", None), ("x", None)], False),
        ([("ce_type", None)], True),
        ([("ce_type", b"\xff")], True),
        ([("ce_type", b"inference-meter.usage.capacity.v1"), ("ce_type", b"")], True),
        ([("ce_specversion", b"0.3")], True),
        ([("ce_type", b"inference-meter.usage.capacity.v1"), ("ce_id", b"garbled")], False),
    ],
)
async def test_headers_that_are_null_or_garbled_stop_nothing(
    headers: list[tuple[str, bytes | None]], is_refused: bool
) -> None:
    world = World()
    value = beat(NOW_S).model_dump_json().encode()
    message = Message(0, value, NOW_S * 1000, headers=tuple(headers))
    await kept_by(world, CollectorRegistry(), message)
    letters = [dict(r.headers) for r in world.records if r.topic == "usage.dlq.v1"]
    assert [h["meter_reason"] for h in letters] == [b"wrong-type"] * is_refused
    assert world.done[-1] == ("commit", 1)


@pytest.mark.parametrize("stamp_ms", [None, (NOW_S + 2 * YEAR_S) * 1000], ids=["none", "a lie"])
async def test_a_stamp_that_is_not_the_brokers_makes_nothing_future_sound(
    stamp_ms: int | None,
) -> None:
    """As in a topic that takes its stamps from whoever sends."""
    world = World()
    ahead = beat(int(time.time()) + YEAR_S).model_dump_json().encode()
    await kept_by(world, CollectorRegistry(), Message(0, ahead, stamp_ms, timestamp_type=0))
    assert [name for name, _ in world.done] == ["published", "commit"]


async def test_a_heartbeat_that_can_not_be_compared_does_not_stop_those_behind_it() -> None:
    world, registry = World(), CollectorRegistry()
    world.breaks_at = NOW_S
    beats = [Message(n, beat(NOW_S + n).model_dump_json().encode(), NOW_S * 1000) for n in (0, 1)]
    made = await kept_by(world, registry, beats[0])
    await made._store([beats[1]])
    await made._judge(time.time_ns() + 3600 * NS)
    assert world.done[-1] == ("commit", 2)
    assert registry.get_sample_value("meter_reconciler_failed_heartbeats_total") == 1


async def test_a_server_whose_last_metered_model_is_gone_is_told_of_no_more() -> None:
    world, registry = World(), CollectorRegistry()
    stamp_ms = NOW_S * 1000
    made = await kept_by(
        world, registry, Message(0, beat(NOW_S).model_dump_json().encode(), stamp_ms)
    )
    missing = "meter_reconciliation_missing_executions"
    assert registry.get_sample_value(missing, {"model": "m"}) == 1
    world.judges = False
    left = beat(NOW_S + 5).model_copy(update={"models": ()})
    await made._store([Message(1, left.model_dump_json().encode(), stamp_ms + 5000)])
    await made._judge(time.time_ns() + 3600 * NS)
    assert registry.get_sample_value(missing, {"model": "m"}) is None

"""The delivery of alerts, with a topic that outlives the process and receivers that fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from prometheus_client import CollectorRegistry

from metering.costs import Anomaly
from metering.errors import SinkRefused, SinkUnavailable
from sinks.alertmanager import AlertmanagerSink
from sinks.http_post import ONE_TRY
from sinks.prometheus import DetectorMetrics
from sinks.webhook import WebhookSink
from streams import group_place
from streams.detection import alerts, pending_alerts
from streams.detection.alerts import Delivery, Target, group_of
from streams.publisher import anomaly_record
from streams.settings import Settings
from tests.unit.test_webhook import ANOMALY, Receiver, receiving
from tests.waiting import until


class Topic:
    """Values and committed offsets by group, which outlive a process."""

    def __init__(self, count: int = 0) -> None:
        self.records: list[Any] = []
        self.committed: dict[str, int] = {}
        self.topic_id = "one"
        self.ids: dict[str, str] = {}
        self.beginning = 0
        self.commit_fails = 0
        self.start_fails = 0
        self.add(count)

    def add(self, count: int) -> None:
        for _ in range(count):
            n = len(self.records)
            record = anomaly_record(ANOMALY.model_copy(update={"anomaly_id": f"a{n}"}))
            self.put(record.value, tuple(record.headers))

    def replace(self, topic_id: str) -> None:
        """Delete it and create it again: the broker forgets what was committed of it."""
        self.topic_id, self.records = topic_id, []
        self.committed.clear()

    async def topic_ids(self, _: Settings, names: list[str]) -> dict[str, str]:
        return dict.fromkeys(names, self.topic_id)

    @asynccontextmanager
    async def admin(self, _: Settings) -> AsyncIterator[Any]:
        async def offsets(group: str, partitions: list[Any]) -> dict[Any, Any]:
            if group not in self.committed:
                return {}
            found = OffsetAndMetadata(self.committed[group], self.ids.get(group, ""))
            return {partitions[0]: found}

        yield SimpleNamespace(list_consumer_group_offsets=offsets)

    def put(self, value: bytes | None, headers: tuple[tuple[str, bytes | None], ...] = ()) -> None:
        self.records.append(
            SimpleNamespace(
                offset=len(self.records), value=value, headers=headers, key=None,
                timestamp=1_780_000_000_000, timestamp_type=0,
            )
        )  # fmt: skip


class Consumer:
    """As much of aiokafka's consumer as is used."""

    topic: Topic

    def __init__(self, *, group_id: str, **_: Any) -> None:
        self._group = group_id
        self._next = 0

    async def start(self) -> None:
        if self.topic.start_fails:
            self.topic.start_fails -= 1
            raise KafkaConnectionError("away")

    async def stop(self) -> None: ...

    def assign(self, partitions: list[Any]) -> None:
        self._partitions = partitions

    def assignment(self) -> set[Any]:
        return set(self._partitions)

    def partitions_for_topic(self, _: str) -> set[int]:
        return {0}

    async def beginning_offsets(self, partitions: list[Any]) -> dict[Any, int]:
        return dict.fromkeys(partitions, self.topic.beginning)

    async def end_offsets(self, partitions: list[Any]) -> dict[Any, int]:
        return dict.fromkeys(partitions, len(self.topic.records))

    def seek(self, _: Any, offset: int) -> None:
        self._next = offset

    async def position(self, _: Any) -> int:
        return self._next

    def highwater(self, _: Any) -> int:
        return len(self.topic.records)

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[Any, list[Any]]:
        assert max_records == 1
        await asyncio.sleep(0.001 if timeout_ms else 0)
        if self._next >= len(self.topic.records):
            return {}
        self._next += 1
        return {self._partitions[0]: [self.topic.records[self._next - 1]]}

    async def commit(self, offsets: dict[Any, OffsetAndMetadata]) -> None:
        if self.topic.commit_fails:
            self.topic.commit_fails -= 1
            raise KafkaError("away")
        (value,) = offsets.values()
        self.topic.committed[self._group] = value.offset
        self.topic.ids[self._group] = value.metadata


class Sink:
    """Fails as ``answer`` says; ``None`` takes the alert."""

    def __init__(self, answer: Callable[[str], Exception | None] = lambda _: None) -> None:
        self.answer = answer
        self.tries: list[str] = []
        self.got: list[str] = []

    async def deliver(self, anomaly: Anomaly, late_s: float = 0.0) -> None:
        self.tries.append(anomaly.anomaly_id)
        assert late_s > 0
        if (error := self.answer(anomaly.anomaly_id)) is not None:
            raise error
        self.got.append(anomaly.anomaly_id)


AWAY = SinkUnavailable("webhook", 1, "HTTP 503")


class Process:
    """One life of the deliveries to some targets."""

    def __init__(self, topic: Topic, *sinks: Any) -> None:
        Consumer.topic = topic
        vars(group_place).update(topic_ids=topic.topic_ids, kafka_admin=topic.admin)
        self.registry = CollectorRegistry()
        metrics = DetectorMetrics(self.registry)
        self.deliveries = [
            Delivery(Settings(), Target(f"t{n}", f"g{n}", sink), metrics)
            for n, sink in enumerate(sinks)
        ]

    async def __aenter__(self) -> Process:
        self._tasks = [asyncio.create_task(d.run()) for d in self.deliveries]
        for delivery in self.deliveries:
            await delivery.positioned.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "AIOKafkaConsumer", Consumer)
    for name in ("topic_ids", "kafka_admin"):  # each process sets its own
        monkeypatch.setattr(group_place, name, None)
    monkeypatch.setattr(group_place, "CHECK_S", -1.0)
    monkeypatch.setattr(alerts, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(alerts, "RETRY_MOST_S", 0.001)
    monkeypatch.setattr(pending_alerts, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(pending_alerts, "MOST_DELAY_S", 0.002)


def names(*numbers: int) -> list[str]:
    return [f"a{n}" for n in numbers]


async def test_an_alert_is_tried_until_it_is_taken_and_then_committed() -> None:
    topic, sink = Topic(), Sink(lambda _: AWAY)
    async with Process(topic, sink) as process:
        topic.add(5)
        await until(lambda: len(sink.tries) > 100)
        assert topic.committed == {"g0": 0}
        assert process.metric("meter_alerts_pending", target="t0") == 5
        sink.answer = lambda _: None
        await until(lambda: topic.committed == {"g0": 5})
        await until(lambda: process.metric("meter_alerts_pending", target="t0") == 0)
        assert sorted(sink.got) == names(0, 1, 2, 3, 4)
        assert process.metric("meter_alert_deliveries_total", outcome="delivered") == 5
        assert process.metric("meter_alert_deliveries_total", outcome="failed") > 90


async def test_an_outage_of_a_target_has_two_lines_however_long_it_lasts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    topic, sink = Topic(), Sink(lambda _: AWAY)
    async with Process(topic, sink):
        topic.add(5)
        await until(lambda: len(sink.tries) > 100)
        assert [r.getMessage() for r in caplog.records] == [
            "alerts to t0 wait: webhook did not take 1 rows: HTTP 503; retrying until it succeeds"
        ]
        sink.answer = lambda _: None
        await until(lambda: topic.committed == {"g0": 5})
    _, end = [r.getMessage() for r in caplog.records]
    assert end.startswith("t0 answers again after ")


async def test_an_outage_of_kafka_has_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    topic, sink = Topic(), Sink()
    topic.start_fails = topic.commit_fails = 20
    async with Process(topic, sink):
        topic.add(1)
        await until(lambda: sink.got == ["a0"] and topic.committed == {"g0": 1})
    begin, *_, end = [r.getMessage() for r in caplog.records]
    assert begin.startswith("Kafka: alerts to t0 wait: ")
    assert end.startswith("Kafka answers again after ")
    assert len(caplog.records) <= 4


@pytest.mark.parametrize("count", [1, 5, 20])
async def test_alerts_of_a_topic_that_was_created_again_are_delivered(count: int) -> None:
    topic, sink = Topic(), Sink(lambda name: AWAY if name == "a7" else None)
    async with Process(topic, sink):
        topic.add(10)
        await until(lambda: len(sink.got) == 9 and sink.tries.count("a7") > 3)
        sink.got.clear()
        sink.answer = lambda _: None
        topic.replace("two")
        topic.add(count)
        await until(lambda: topic.committed == {"g0": count} and topic.ids == {"g0": "two"})
        assert set(names(*range(count))) <= set(sink.got)


async def test_what_was_committed_of_the_topic_before_says_nothing_after_a_restart() -> None:
    topic, sink = Topic(), Sink()
    async with Process(topic, sink):
        topic.add(3)
        await until(lambda: topic.committed == {"g0": 3})
    committed = dict(topic.committed)
    topic.replace("two")
    topic.committed |= committed  # of a broker that keeps them
    topic.add(5)
    again = Sink()
    async with Process(topic, again):
        await until(lambda: topic.committed == {"g0": 5})
    assert again.got == names(0, 1, 2, 3, 4)


async def test_what_is_not_delivered_outlives_a_restart() -> None:
    topic = Topic()
    async with Process(topic, Sink()):
        pass
    topic.add(3)
    deaf = Sink(lambda name: AWAY if name != "a1" else None)
    async with Process(topic, deaf):
        await until(lambda: deaf.got == ["a1"] and len(deaf.tries) > 20)
    sink = Sink()
    async with Process(topic, sink):
        await until(lambda: topic.committed == {"g0": 3})
    assert set(names(0, 2)) <= set(sink.got)
    after = Sink()
    async with Process(topic, after):
        topic.add(1)
        await until(lambda: topic.committed == {"g0": 4})
    assert after.got == names(3), "what was committed is not delivered again"


async def test_a_dead_target_holds_up_no_other() -> None:
    topic, dead, alive = Topic(), Sink(lambda _: AWAY), Sink()
    hangs = SimpleNamespace(deliver=lambda *_: asyncio.sleep(3600))
    async with Process(topic, dead, hangs, alive):
        topic.add(150)
        await until(lambda: topic.committed["g2"] == 150)
    assert alive.got == names(*range(150))
    assert (topic.committed["g0"], topic.committed["g1"]) == (0, 0)


async def test_memory_is_bounded_while_a_target_is_away() -> None:
    topic, sink = Topic(), Sink(lambda _: AWAY)
    async with Process(topic, sink) as process:
        topic.add(250)
        pending = process.deliveries[0]
        await until(lambda: process.metric("meter_alerts_pending", target="t0") == 250)
        await until(lambda: len(pending._pending) == pending_alerts.MOST)
        sink.answer = lambda _: None
        await until(lambda: topic.committed == {"g0": 250})
    assert sorted(sink.got) == sorted(names(*range(250)))


async def test_a_refusal_is_final_counted_and_committed() -> None:
    topic = Topic()
    sink = Sink(lambda name: SinkRefused("webhook", 1, "HTTP 404") if name == "a0" else None)
    async with Process(topic, sink) as process:
        topic.add(2)
        await until(lambda: topic.committed == {"g0": 2})
        assert sink.tries == names(0, 1)
        assert process.metric("meter_alert_deliveries_total", outcome="refused") == 1
        assert process.metric("meter_alert_refusals_total", target="t0") == 1


async def test_a_new_target_is_told_of_what_comes_from_now_on_even_if_it_dies_at_once() -> None:
    topic = Topic(3)
    async with Process(topic, Sink()):
        pass
    assert topic.committed == {"g0": 3}
    topic.add(1)
    sink = Sink()
    async with Process(topic, sink):
        await until(lambda: topic.committed == {"g0": 4})
    assert sink.got == names(3)


async def test_alerts_that_expired_in_their_topic_are_counted() -> None:
    topic, sink = Topic(5), Sink()
    topic.committed, topic.beginning = {"g0": 1}, 4
    async with Process(topic, sink) as process:
        await until(lambda: topic.committed == {"g0": 5})
        assert process.metric("meter_alert_refusals_total", target="t0") == 3
    assert sink.got == names(4)


async def test_kafka_that_is_away_is_waited_for() -> None:
    topic, sink = Topic(), Sink()
    topic.start_fails, topic.commit_fails = 3, 2
    async with Process(topic, sink):
        topic.add(2)
        await until(lambda: topic.committed == {"g0": 2})
    assert sink.got == names(0, 1)


HOSTILE = {
    "nothing": None,
    "no JSON": b"{",
    "no anomaly": b"{}",
    "nested": b"[" * 100_000,
    "no length": ANOMALY.model_copy(update={"window_seconds": 0}).model_dump_json().encode(),
    "a time beyond every calendar": ANOMALY.model_copy(update={"window_start_ms": 10**30})
    .model_dump_json()
    .encode(),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_anomaly_stops_nothing(name: str) -> None:
    """Whatever the target is."""
    topic = Topic()
    async with receiving(Receiver()) as receiver:
        sinks = [WebhookSink(receiver.url, policy=ONE_TRY)]
        sinks += [AlertmanagerSink(receiver.url, policy=ONE_TRY)]  # type: ignore[list-item]
        async with Process(topic, *sinks) as process:
            topic.put(HOSTILE[name], (("ce_id", None), ("x", None)))
            topic.add(1)
            await until(lambda: topic.committed == {"g0": 2, "g1": 2})
            assert process.metric("meter_alert_deliveries_total", outcome="invalid") >= 1
        for sink in sinks:
            await sink.close()


async def test_an_anomaly_of_another_type_is_passed_over() -> None:
    topic, sink = Topic(), Sink()
    async with Process(topic, sink) as process:
        topic.put(ANOMALY.model_dump_json().encode(), (("ce_type", None),))
        await until(lambda: topic.committed == {"g0": 1})
        assert process.metric("meter_alert_deliveries_total", outcome="invalid") == 1
    assert sink.tries == []


async def test_a_webhook_that_was_away_gets_every_alert() -> None:
    topic, statuses = Topic(), [503, 500, 429, 408, 502] * 5
    async with receiving(Receiver(statuses=statuses)) as receiver:
        sink = WebhookSink(receiver.url, policy=ONE_TRY)
        async with Process(topic, sink):
            topic.add(5)
            await until(lambda: topic.committed == {"g0": 5})
        await sink.close()
    keys = [headers["idempotency-key"] for headers in receiver.headers]
    assert len(keys) == 30
    assert sorted(set(keys)) == names(0, 1, 2, 3, 4)


def test_a_group_tells_nothing_of_an_address_and_is_that_of_one_address() -> None:
    groups = [group_of(f"https://h/services/{token}") for token in ("T0K3N", "0TH3R")]
    assert len(set(groups)) == 2
    assert group_of("https://h/services/T0K3N") == groups[0]
    assert "T0K3N" not in groups[0]

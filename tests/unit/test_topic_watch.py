"""A worker that is told of a topic's replacement ends, whatever else it is at."""

from __future__ import annotations

import pytest
from aiokafka.errors import KafkaConnectionError

from metering.epochs import Epoch
from metering.errors import SinkUnavailable
from metering.ledger import Ledger
from streams.settings import Settings
from streams.topic_ids import NO_ID, TopicReplaced
from streams.topics import ADDITIONS, USAGE_BATCHES
from streams.worker import epochs
from streams.worker.desks import _first_unstored
from streams.worker.epochs import TopicWatch


class Ended(BaseException):
    pass


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The topics that Kafka has; without any it does not answer."""
    found: dict[str, str] = {}

    async def topic_ids(_: Settings, names: tuple[str, ...]) -> dict[str, str]:
        if not found:
            raise KafkaConnectionError("away")
        return {name: found[name] for name in names if name in found}

    def end(_code: int) -> None:
        raise Ended

    monkeypatch.setattr(epochs, "topic_ids", topic_ids)
    monkeypatch.setattr("streams.worker.epochs.os._exit", end)
    monkeypatch.setattr("streams.worker.epochs.logging.shutdown", lambda: None)
    return found


async def test_a_replaced_topic_ends_the_worker_which_names_both_ids(
    there: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    watch = TopicWatch(Settings())
    there |= {USAGE_BATCHES: "a", ADDITIONS: "b"}
    await watch.check()
    await watch.check_or_end()
    there[ADDITIONS] = "c"
    with pytest.raises(TopicReplaced):
        await watch.check()
    with pytest.raises(Ended):
        await watch.check_or_end()
    assert f"topic {ADDITIONS} was deleted and created again: its id was b, and is c" in caplog.text


async def test_a_topic_that_is_away_or_a_kafka_that_is_away_ends_nothing(
    there: dict[str, str],
) -> None:
    watch = TopicWatch(Settings())
    await watch.check_or_end()
    with pytest.raises(SinkUnavailable):
        await watch.check()
    there |= {USAGE_BATCHES: "a", ADDITIONS: "b"}
    await watch.check()
    del there[ADDITIONS]
    await watch.check_or_end()
    assert watch.id_of(ADDITIONS) == "b"


async def test_a_cluster_without_ids_is_one_whose_topics_are_never_replaced(
    there: dict[str, str],
) -> None:
    watch = TopicWatch(Settings())
    there[USAGE_BATCHES] = NO_ID
    await watch.check()
    assert watch.id_of(USAGE_BATCHES) == watch.id_of(ADDITIONS) == ""


@pytest.mark.parametrize(
    ("acknowledged", "counted_to", "begin", "first"),
    [
        (7, 9, 0, 7),
        (10, 9, 0, 10),
        (3, 25, 20, 3),
        (6, 25, 20, 6),
        (7, 25, 20, 0),
        (900, 25, 20, 0),
    ],
        (7, 9, 0, 7),
        (10, 9, 0, 10),
        (3, 25, 20, 3),
        (6, 25, 20, 6),
        (7, 25, 20, 0),
        (900, 25, 20, 0),
    ],
)
def test_what_was_acknowledged_of_the_topic_before_passes_over_no_lines(
    acknowledged: int, counted_to: int, begin: int, first: int
) -> None:
    ledger = Ledger(counted_to=counted_to, epoch=Epoch("id", begin))
    assert _first_unstored(acknowledged, ledger) == first

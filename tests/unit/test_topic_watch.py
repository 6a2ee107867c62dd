"""A worker that is told of a topic's replacement ends, whatever else it is at."""

from __future__ import annotations

from typing import cast

import pytest
from aiokafka.errors import KafkaConnectionError

from metering.epochs import Epoch
from metering.errors import SinkUnavailable
from metering.ledger import Ledger
from streams.settings import Settings
from streams.topic_ids import NO_ID, TopicReplaced
from streams.topics import ADDITIONS, TOTALS, USAGE_BATCHES
from streams.worker import epochs
from streams.worker.desks import _first_unstored, _partitions_of
from streams.worker.epochs import TopicWatch
from streams.worker.transaction import Transactions


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


async def test_nothing_is_begun_with_a_topic_of_which_nobody_says_which_it_is(
    there: dict[str, str],
) -> None:
    watch = TopicWatch(Settings())
    with pytest.raises(SinkUnavailable):
        await watch.check_or_end(USAGE_BATCHES)
    there[ADDITIONS] = "b"
    with pytest.raises(SinkUnavailable, match=f"{USAGE_BATCHES} does not answer: it is not there"):
        await watch.check_or_end(ADDITIONS, USAGE_BATCHES)
    there[USAGE_BATCHES] = NO_ID
    await watch.check_or_end(ADDITIONS, USAGE_BATCHES)


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
)
def test_what_was_acknowledged_of_the_topic_before_passes_over_no_lines(
    acknowledged: int, counted_to: int, begin: int, first: int
) -> None:
    ledger = Ledger(counted_to=counted_to, epoch=Epoch("id", begin))
    assert _first_unstored(acknowledged, ledger) == first


@pytest.mark.parametrize(("found", "is_enough"), [(4, True), (6, True), (1, False)])
async def test_a_topic_that_the_broker_has_created_with_one_partition_is_waited_for(
    found: int, is_enough: bool
) -> None:
    class Counted:
        async def partitions_of(self, topic: str) -> int:
            return found if topic == ADDITIONS else 4

    counted = cast("Transactions", Counted())
    if is_enough:
        assert await _partitions_of(counted, ADDITIONS, TOTALS) == (found, 4)
    else:
        with pytest.raises(SinkUnavailable, match=r"has 1 partitions .* has 4"):
            await _partitions_of(counted, ADDITIONS, TOTALS)

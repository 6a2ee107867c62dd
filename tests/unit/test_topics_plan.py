"""What is done to a topic, and above all what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import MeteringError
from streams.topics import (
    COST_REQUESTS,
    COST_WINDOWS,
    LEDGERS,
    TOPICS,
    TOTALS,
    USAGE_BATCHES,
    Topic,
)
from streams.topics_plan import FoundTopic, plan_topic, with_partitions

KEYED = Topic("t", 4, {"retention.ms": "7", "cleanup.policy": "compact,delete"})
ORDERED = Topic("o", 1, one_reader=True)

values = st.sampled_from(["1", "2", "compact", "delete"])
configs = st.dictionaries(st.sampled_from(["retention.ms", "segment.ms", "x"]), values)
wanted_topics = st.builds(Topic, st.just("t"), st.integers(1, 5), configs)
found_topics = st.builds(FoundTopic, st.integers(1, 5), st.integers(1, 3), configs)


def test_what_is_missing_is_created_as_it_should_be() -> None:
    plan = plan_topic(KEYED, None, 3)
    assert plan.create
    assert plan.differs
    assert str(plan) == (
        "t: created, partitions=4, 3 copies, cleanup.policy=compact,delete, retention.ms=7"
    )


def test_what_differs_is_said_with_what_it_was() -> None:
    plan = plan_topic(KEYED, FoundTopic(2, 1, {"retention.ms": "9"}))
    assert str(plan) == (
        "t: altered partitions: 2 → 4, cleanup.policy: unset → compact,delete, retention.ms: 9 → 7"
    )


@pytest.mark.parametrize("policy", ["compact,delete", "delete,compact", "delete, compact"])
def test_a_set_of_policies_is_the_same_in_any_order(policy: str) -> None:
    plan = plan_topic(KEYED, FoundTopic(4, 1, {"retention.ms": "7", "cleanup.policy": policy}))
    assert not plan.differs
    assert str(plan) == "t: as it should be"


@given(wanted_topics, found_topics)
def test_only_what_is_named_changes_and_nothing_is_taken_away(
    wanted: Topic, found: FoundTopic
) -> None:
    plan = plan_topic(wanted, found)
    assert not plan.create
    assert plan.configs.keys() <= wanted.configs.keys()
    assert all(was != to for was, to in plan.configs.values())
    assert plan.more_partitions is None or plan.more_partitions[0] < plan.more_partitions[1]


@given(wanted_topics, found_topics)
def test_a_plan_carried_out_leaves_nothing_to_do(wanted: Topic, found: FoundTopic) -> None:
    plan = plan_topic(wanted, found)
    after = FoundTopic(
        max(found.partitions, wanted.partitions),
        found.replicas,
        {**found.configs, **{name: to for name, (_, to) in plan.configs.items()}},
    )
    assert not plan_topic(wanted, after).differs


def test_more_partitions_than_ours_are_a_fault_only_where_one_reader_must_see_everything() -> None:
    assert not plan_topic(Topic("t", 2), FoundTopic(8, 1, {})).differs
    plan = plan_topic(ORDERED, FoundTopic(3, 1, {}))
    assert not plan.changes
    assert plan.differs
    assert str(plan) == "o: left partitions: 3, not 1: they can't be taken away"


def test_too_few_copies_are_said_and_left() -> None:
    plan = plan_topic(ORDERED, FoundTopic(1, 1, {}), 3)
    assert not plan.changes
    assert "replicas: 1, not 3" in str(plan)
    assert not plan_topic(ORDERED, FoundTopic(1, 3, {}), 2).differs


def test_what_only_creates_leaves_what_exists() -> None:
    plan = plan_topic(KEYED, FoundTopic(1, 1, {}))
    assert plan.changes
    assert not plan.as_created_only().differs
    assert plan_topic(KEYED, None).as_created_only().create


def test_a_topic_whose_number_of_partitions_says_what_is_where_is_left_as_it_is() -> None:
    plan = plan_topic(Topic("t", 4, is_fixed=True), FoundTopic(2, 1, {}))
    assert not plan.changes
    assert "left partitions: 2, not 4" in str(plan)


def test_the_ledgers_have_as_many_partitions_as_usage() -> None:
    found = {t.name: t.partitions for t in with_partitions({USAGE_BATCHES: 9})}
    assert found[LEDGERS] == found[USAGE_BATCHES] == 9


def test_partitions_can_be_given_where_the_order_allows_it() -> None:
    given_topics = with_partitions({COST_REQUESTS: 12})
    assert {t.name: t.partitions for t in given_topics} == {
        t.name: 12 if t.name == COST_REQUESTS else t.partitions for t in TOPICS
    }
    for wrong, said in (
        ({"nope": 1}, "no topic 'nope'"),
        ({COST_REQUESTS: 0}, "1 partition or more"),
        ({COST_WINDOWS: 2}, "its reader must see everything"),
    ):
        with pytest.raises(MeteringError, match=said):
            with_partitions(wrong)


def test_only_what_a_key_identifies_is_compacted_and_nothing_is_kept_for_ever() -> None:
    for topic in TOPICS:
        if topic.name in (LEDGERS, TOTALS):
            assert topic.configs["cleanup.policy"] == "compact", "the worker deletes by itself"
            continue
        assert int(topic.configs["retention.ms"]) > 0
        policies = topic.configs.get("cleanup.policy", "delete").split(",")
        assert "delete" in policies
        assert ("compact" in policies) == (topic.name == "cost.windows.v1")

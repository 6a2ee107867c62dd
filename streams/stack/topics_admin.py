"""Makes the cluster's topics what they should be: the one way in which they are made.

Reads what there is, decides (``streams.topics_plan``), creates, adds partitions, sets configs, in
this order. Each step is done again with the same outcome, so a crash in between is mended by the
next time. Nothing is deleted, and no config is touched but those that a topic names.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from metering.errors import StackError
from streams.kafka_admin import kafka_admin
from streams.settings import Settings
from streams.stack.alter_configs import set_topic_configs
from streams.stack.probes import quiet_aiokafka
from streams.topics import Topic
from streams.topics_plan import FoundTopic, TopicPlan, plan_topic, with_partitions

TRY_FOR_S = 15.0


async def ensure_topics(
    settings: Settings, *, alter: bool, partitions: Mapping[str, int] | None = None
) -> None:
    """As a stack starts: without ``alter`` an existing topic stays as it is.

    Raises:
        StackError: Kafka refuses a topic, or can't be reached for some seconds.
        MeteringError: see ``with_partitions``.
    """
    await apply_topics(settings, with_partitions(partitions or {}), alter=alter)


async def apply_topics(
    settings: Settings,
    wanted: Sequence[Topic],
    *,
    alter: bool = True,
    write: bool = True,
    replication_factor: int | None = None,
    try_for_s: float = TRY_FOR_S,
) -> tuple[TopicPlan, ...]:
    """What was done; without ``write``, what would have been. ``replication_factor``: of topics
    that are created; ``None`` is the cluster's default.

    Raises:
        StackError: Kafka refuses something, or can't be reached for ``try_for_s``.
    """
    deadline = time.monotonic() + try_for_s
    first: list[TopicPlan] = []
    while True:
        try:
            with quiet_aiokafka():
                async with kafka_admin(settings) as admin:
                    found = await _find(admin, {topic.name for topic in wanted})
                    plans = [plan_topic(t, found.get(t.name), replication_factor) for t in wanted]
                    if not alter:
                        plans = [plan.as_created_only() for plan in plans]
                    first = first or plans  # later ones tell only what a failed try has left
                    if write:
                        await _carry_out(admin, plans)
        except (KafkaError, OSError, TimeoutError) as exc:
            lasting = isinstance(exc, KafkaError) and not exc.retriable
            if lasting or time.monotonic() >= deadline:
                raise StackError(f"can't apply topics on {settings.kafka}: {exc!r}") from exc
            await asyncio.sleep(0.5)
        else:
            return tuple(first)


async def _carry_out(admin: AIOKafkaAdminClient, plans: Sequence[TopicPlan]) -> None:
    await _create(admin, [plan for plan in plans if plan.create])
    more = {
        plan.topic.name: NewPartitions(plan.topic.partitions)
        for plan in plans
        if plan.more_partitions is not None
    }
    if more:
        await admin.create_partitions(more)
    configs = {
        plan.topic.name: {name: to for name, (_, to) in plan.configs.items()}
        for plan in plans
        if plan.configs
    }
    if configs:
        await set_topic_configs(admin, configs)


async def _find(admin: AIOKafkaAdminClient, names: set[str]) -> dict[str, FoundTopic]:
    """All topics are asked for: a broker may create one that is asked for by name."""
    described = {t["topic"]: t["partitions"] for t in await admin.describe_topics()}
    there = sorted(names & described.keys())
    if not there:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in there]
    configs: dict[str, dict[str, str]] = {}
    for answer in await admin.describe_configs(resources):
        for code, message, _, name, entries in answer.resources:
            if code != 0:
                raise for_code(code)(f"topic {name}: {message}")
            configs[name] = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
    return {
        name: FoundTopic(
            partitions=len(described[name]),
            replicas=min(len(p["replicas"]) for p in described[name]),
            configs=configs[name],
        )
        for name in there
    }


async def _create(admin: AIOKafkaAdminClient, plans: Sequence[TopicPlan]) -> None:
    if not plans:
        return
    answer = await admin.create_topics([_new_topic(plan) for plan in plans])
    for name, code, *rest in answer.topic_errors:
        problem = for_code(code)
        if code != 0 and problem is not TopicAlreadyExistsError:
            raise problem(f"topic {name}: {rest[0] if rest else ''}")


def _new_topic(plan: TopicPlan) -> NewTopic:
    """Replicated as the cluster's default says (-1, since Kafka 2.4) where nothing else is said.

    aiokafka lets -1 pass only beside replica assignments, so there are empty ones.
    """
    given = plan.replication_factor
    return NewTopic(
        plan.topic.name,
        plan.topic.partitions,
        replication_factor=-1 if given is None else given,
        replica_assignments={} if given is None else None,
        topic_configs=plan.topic.configs,
    )

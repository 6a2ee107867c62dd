"""What is to be done so that a topic is as it should be. Pure; data is never deleted by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from metering.errors import MeteringError
from streams.topics import FOLLOWS, TOPICS, Topic

LIST_CONFIGS: frozenset[str] = frozenset(("cleanup.policy",))
"""Their values are sets, written with commas."""


@dataclass(frozen=True, slots=True)
class FoundTopic:
    """A topic as the cluster has it; ``replicas`` is that of its least replicated partition."""

    partitions: int
    replicas: int
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """One topic. ``configs`` maps a name to what it is and what it is to be.

    ``more_partitions`` is how many there are and are to be. ``beyond`` says what is wrong and can't
    be put right without moving or deleting data; it is left to people.
    """

    topic: Topic
    create: bool = False
    replication_factor: int | None = None
    more_partitions: tuple[int, int] | None = None
    configs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    beyond: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        return self.create or self.more_partitions is not None or bool(self.configs)

    @property
    def differs(self) -> bool:
        return self.changes or bool(self.beyond)

    def as_created_only(self) -> TopicPlan:
        """What exists is left as it is."""
        return replace(self, more_partitions=None, configs={}, beyond=())

    def __str__(self) -> str:
        return f"{self.topic.name}: {self._what()}"

    def _what(self) -> str:
        if self.create:
            configs = "".join(f", {n}={v}" for n, v in sorted(self.topic.configs.items()))
            copies = (
                "" if self.replication_factor is None else f", {self.replication_factor} copies"
            )
            return f"created, partitions={self.topic.partitions}{copies}{configs}"
        altered = [f"{name}: {was} → {to}" for name, (was, to) in sorted(self.configs.items())]
        if self.more_partitions is not None:
            altered.insert(0, "partitions: {} → {}".format(*self.more_partitions))
        parts = [f"altered {', '.join(altered)}"] if altered else []
        parts += [f"left {reason}" for reason in self.beyond]
        return "; ".join(parts) or "as it should be"


def plan_topic(
    wanted: Topic, found: FoundTopic | None, replication_factor: int | None = None
) -> TopicPlan:
    """``replication_factor`` is of topics that are created; ``None``: the cluster's default."""
    if found is None:
        return TopicPlan(wanted, create=True, replication_factor=replication_factor)
    beyond = []
    if wanted.one_reader and found.partitions > wanted.partitions:
        beyond.append(
            f"partitions: {found.partitions}, not {wanted.partitions}: they can't be taken away"
        )
    if wanted.is_fixed and found.partitions != wanted.partitions:
        beyond.append(
            f"partitions: {found.partitions}, not {wanted.partitions}: "
            "what is where follows from their number"
        )
    adds = found.partitions < wanted.partitions and not wanted.is_fixed
    if replication_factor is not None and found.replicas < replication_factor:
        beyond.append(
            f"replicas: {found.replicas}, not {replication_factor}: see kafka-reassign-partitions"
        )
    return TopicPlan(
        wanted,
        more_partitions=(found.partitions, wanted.partitions) if adds else None,
        configs={
            name: (found.configs.get(name, "unset"), value)
            for name, value in wanted.configs.items()
            if not _same(name, found.configs.get(name), value)
        },
        beyond=tuple(beyond),
    )


def with_partitions(partitions: Mapping[str, int]) -> tuple[Topic, ...]:
    """The project's topics, those that are named with another count of partitions, and those that
    follow them with the same.

    Raises:
        MeteringError: no such topic, a count below 1, or more than one where one reader must see
            everything.
    """
    by_name = {topic.name: topic for topic in TOPICS}
    for name, count in partitions.items():
        if name not in by_name:
            raise MeteringError(f"no topic {name!r}; there are {', '.join(by_name)}")
        if count < 1:
            raise MeteringError(f"{name}={count}: a topic has 1 partition or more")
        if by_name[name].one_reader and count > 1:
            raise MeteringError(
                f"{name}={count}: this topic has one partition, for its reader must see everything"
            )
        by_name[name] = replace(by_name[name], partitions=count)
    for name, leader in FOLLOWS.items():
        if leader in partitions and name not in partitions:
            by_name[name] = replace(by_name[name], partitions=partitions[leader])
    return tuple(by_name.values())


def _same(name: str, found: str | None, wanted: str) -> bool:
    if found is None:
        return False
    if name in LIST_CONFIGS:
        return set(found.replace(" ", "").split(",")) == set(wanted.split(","))
    return found == wanted

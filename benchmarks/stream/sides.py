"""The processes that are compared: how each is started, and made to begin at the topic's start."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError

from benchmarks.stream.given import Given
from benchmarks.stream.progress import HowFar
from metering.errors import MeteringError
from sinks.clickhouse.connection import connect
from streams.kafka_admin import kafka_admin
from streams.settings import Settings
from streams.stack.places import REPO
from streams.stack.ports import HOST, PortBook
from streams.stack.probes import quiet_aiokafka
from streams.stack.services import own_env
from streams.stack.topics_admin import apply_topics
from streams.targets import clickhouse_target
from streams.topics import ADDITIONS, TOPICS, USAGE_BATCHES, Topic
from streams.topics_plan import with_partitions
from streams.worker.app import APP_ID

BARE, WORKER, FAUST, QUIX = "bare", "worker", "faust", "quix"
SIDES = (BARE, WORKER, FAUST, QUIX)
ATTEMPTS = 20
QUIX_PYTHON = REPO / ".venv-bench" / "bin" / "python"
_MODULES = {
    BARE: (sys.executable, "benchmarks.stream.bare"),
    WORKER: (sys.executable, "streams.worker"),
    FAUST: (sys.executable, "benchmarks.stream.plain_faust"),
    QUIX: (str(QUIX_PYTHON), "benchmarks.stream.plain_quix"),
}


async def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Start:
    """One process of a side, asked every ``ask_every_s`` how far it is. ``clean`` removes what it
    has stored."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    folder: Path
    how_far: HowFar
    ask_every_s: float = 0.02
    prepare: Callable[[], Awaitable[None]] = _nothing
    clean: Callable[[], Awaitable[None]] = _nothing


def start_of(
    name: str, run: str, settings: Settings, folder: Path, database: str | None = None
) -> Start:
    """``run`` is another one each time: it names the group, the tables and the folder. Workers that
    work together have one ``database``."""
    python, module = _MODULES[name]
    own = folder / f"{name}-{run}"
    own.mkdir(parents=True)
    argv = (python, "-P", "-m", module)
    path = os.pathsep.join(filter(None, (str(REPO), os.environ.get("PYTHONPATH"))))
    env = {**own_env(os.environ), "PYTHONPATH": path}
    if name == WORKER:
        port = _free_port()
        mine = settings.model_copy(
            update={
                "clickhouse_database": database or f"bench_{run}",
                "state_dir": own,
                "metrics_host": HOST,
                "metrics_port": port,
            }
        )
        return Start(
            name,
            argv,
            env | mine.to_env(),
            own,
            how_far=lambda asked: asked.counted(port),
            ask_every_s=0.25,  # an answer takes a millisecond or two of the worker's time
            prepare=lambda: forget_workers(settings),
            clean=lambda: _drop_tables(mine),
        )
    given = Given(settings.kafka, own.name, own, settings.price_book)
    how_far: HowFar = lambda asked: asked.committed(given.group)  # noqa: E731
    if name == FAUST:
        how_far = lambda asked: asked.in_changelog(f"{given.group}-costs-changelog")  # noqa: E731
    return Start(name, argv, env | given.to_env(), own, how_far)


def _free_port() -> int:
    book = PortBook()
    try:
        return book.take()
    finally:
        book.release()


async def forget_workers(settings: Settings, partitions: int = 1) -> None:
    """The worker's group and its own topics have fixed names, so they are set back before each
    start."""
    internal = {topic.name for topic in TOPICS if topic.is_internal}
    topics = await make_anew(settings, internal, partitions)
    consumer = AIOKafkaConsumer(
        **settings.kafka_client(), group_id=APP_ID, enable_auto_commit=False
    )
    with quiet_aiokafka():  # the first who asks for a group makes Kafka's topic of groups
        await consumer.start()
    try:
        tps = [
            TopicPartition(topic.name, n)
            for topic in topics
            if topic.name in (USAGE_BATCHES, ADDITIONS)
            for n in range(topic.partitions)
        ]
        consumer.assign(tps)
        with quiet_aiokafka():
            await _set_back(consumer, tps)
    finally:
        await consumer.stop()


async def _set_back(consumer: AIOKafkaConsumer, tps: Sequence[TopicPartition]) -> None:
    """A worker of the run before may not have left its group yet: Kafka misses it after 6 s."""
    for _ in range(ATTEMPTS):
        try:
            await consumer.commit(dict.fromkeys(tps, 0))
        except CommitFailedError:
            await asyncio.sleep(1.0)
        else:
            return
    raise MeteringError(f"the group {APP_ID} is not empty after {ATTEMPTS} s: is a worker left?")


async def make_anew(settings: Settings, names: set[str], partitions: int = 1) -> tuple[Topic, ...]:
    """These topics, empty; usage in one partition, for with more Quix Streams would need a topic
    for its groups. Returns all topics, as they are now."""
    async with kafka_admin(settings) as admin:
        there = names & set(await admin.list_topics())
        if there:
            await admin.delete_topics(sorted(there))
        while names & set(await admin.list_topics()):  # noqa: ASYNC110  # Kafka has no event for it
            await asyncio.sleep(0.1)
    topics = with_partitions({USAGE_BATCHES: partitions})
    await apply_topics(settings, topics)
    return topics


async def _drop_tables(settings: Settings) -> None:
    with connect(clickhouse_target(settings), database="default") as client:
        client.command(f"DROP DATABASE IF EXISTS {settings.clickhouse_database}")

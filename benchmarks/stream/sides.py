"""The processes that are compared: how each is started, and made to begin at the topic's start."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from benchmarks.stream.given import Given
from benchmarks.stream.progress import HowFar
from sinks.clickhouse.connection import connect
from streams.settings import Settings
from streams.stack.places import REPO
from streams.stack.ports import HOST, PortBook
from streams.stack.probes import quiet_aiokafka
from streams.stack.services import own_env
from streams.targets import clickhouse_target
from streams.topics import USAGE_BATCHES
from streams.worker.app import APP_ID

BARE, WORKER, FAUST, QUIX = "bare", "worker", "faust", "quix"
SIDES = (BARE, WORKER, FAUST, QUIX)
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


def start_of(name: str, run: str, settings: Settings, folder: Path) -> Start:
    """``run`` is another one each time: it names the group, the tables and the folder."""
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
                "clickhouse_database": f"bench_{run}",
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
            ask_every_s=0.1,  # an answer takes a millisecond of the worker's time
            prepare=lambda: _forget_worker(settings),
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


async def _forget_worker(settings: Settings) -> None:
    """The worker's group and changelog bear its name, so both are set back before each start."""
    admin = AIOKafkaAdminClient(**settings.kafka_client())
    await admin.start()
    try:
        topics = await admin.list_topics()
        changelogs = [t for t in topics if t.startswith(f"{APP_ID}-")]
        if changelogs:
            await admin.delete_topics(changelogs)
        described = await admin.describe_topics([USAGE_BATCHES])
        partitions = [p["partition"] for p in described[0]["partitions"]]
    finally:
        await admin.close()
    consumer = AIOKafkaConsumer(
        **settings.kafka_client(), group_id=APP_ID, enable_auto_commit=False
    )
    with quiet_aiokafka():  # the first who asks for a group makes Kafka's topic of groups
        await consumer.start()
    try:
        tps = [TopicPartition(USAGE_BATCHES, p) for p in partitions]
        consumer.assign(tps)
        with quiet_aiokafka():
            await consumer.commit(dict.fromkeys(tps, 0))
    finally:
        await consumer.stop()


async def _drop_tables(settings: Settings) -> None:
    with connect(clickhouse_target(settings), database="default") as client:
        client.command(f"DROP DATABASE IF EXISTS {settings.clickhouse_database}")

"""Apache Kafka as one KRaft node: its configuration, formatting and command."""

from __future__ import annotations

import asyncio
import os
import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from metering.errors import StackError
from streams.stack.child import leashed, tail
from streams.stack.jars import Jar, classpath, ensure_jars, jar_dir, locked_jars
from streams.stack.java import Java, find_java
from streams.stack.ports import HOST
from streams.stack.probes import kafka_answers
from streams.stack.recipe import Progress, Recipe

DATA = "data"
_CONFIG = "server.properties"
_FORMAT_TIMEOUT_S = 120
_JVM = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # for minutes the second compiler takes more than all the rest
    "-XX:-UsePerfData",  # it would leave a file in the temporary folder after a SIGKILL
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.showShortLogName=true",
    "-Dlog4j2.statusLoggerLevel=OFF",  # only SLF4J's binding is used
)


def server_properties(port: int, controller_port: int) -> str:
    """One node that is broker and controller; internal topics have one replica and few partitions.

    The controller's quorum is static, so that its port may change between starts. The data are
    in ``data`` below the working directory: a properties file has escapes of its own for some
    characters, and Kafka splits the value at commas.
    """
    properties: dict[str, str | int] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": DATA,
        "num.partitions": 1,
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        "auto.create.topics.enable": "true",
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1_000,
        # After a SIGKILL the node can't register until its last session has run out.
        "broker.session.timeout.ms": 2_500,
        "broker.heartbeat.interval.ms": 500,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
    }
    return "".join(f"{key}={value}\n" for key, value in properties.items())


def kafka_recipe(
    folder: Path, log_dir: Path, port: int, controller_port: int, on_progress: Progress
) -> Recipe:
    """Data lie in ``folder`` and outlive the stack.

    Raises:
        StackError: there is no Java, or the lock files of the jars can't be read.
    """
    java, jars = find_java(), locked_jars()
    if os.pathsep in str(jar_dir()):
        raise StackError(
            f"the cache {jar_dir()} has {os.pathsep!r} in its path, at which Java ends a path: "
            "set XDG_CACHE_HOME"
        )

    async def prepare() -> None:
        await ensure_jars(jars, jar_dir(), on_progress)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _CONFIG).write_text(server_properties(port, controller_port))
        if not (folder / DATA / "meta.properties").exists():
            await asyncio.to_thread(_format, java, jars, folder, log_dir / "kafka.log")

    return Recipe(
        name="kafka",
        argv=_command(java, jars, "kafka.Kafka", _CONFIG),
        env=_env(),
        ready=kafka_answers(f"{HOST}:{port}"),
        cwd=folder,
        prepare=prepare,
        start_timeout_s=120.0,
        stop_timeout_s=20.0,
    )


def cluster_id() -> str:
    """A random UUID as Kafka writes it: 22 characters of URL-safe base64, no ``-`` in front."""
    while True:
        text = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def _format(java: Java, jars: tuple[Jar, ...], folder: Path, log: Path) -> None:
    tool = _command(java, jars, "kafka.tools.StorageTool", "format")
    with log.open("ab") as out:
        try:
            done = subprocess.run(
                leashed([*tool, "-t", cluster_id(), "-c", _CONFIG]),
                env=_env(),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=_FORMAT_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise StackError(f"kafka: can't format its storage: {exc}; its log is {log}") from exc
    if done.returncode != 0:
        shown = "".join(f"\n    {line}" for line in tail(log))
        raise StackError(
            f"kafka: can't format its storage (exit code {done.returncode}); "
            f"its log {log} ends:{shown}"
        )


def _command(java: Java, jars: tuple[Jar, ...], main: str, *args: str) -> tuple[str, ...]:
    return (str(java.path), *_JVM, "-cp", classpath(jars, jar_dir()), main, *args)


def _env() -> dict[str, str]:
    """What a JVM may add to its own options would be printed and could be in the way. Only in a
    UTF-8 locale can it open a file whose name is not ASCII."""
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TZ")}
    return {**kept, "LC_ALL": "C.UTF-8"}

"""Kafka's jars: fetched once per user by the committed lock files, verified before every start.

``python -m streams.stack.jars`` resolves the coordinates below anew and writes the lock files.
The logging binding has a lock of its own: resolved together with Kafka it would take its versions
from Kafka's, or Kafka from its.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metering.errors import StackError
from streams.stack.places import LOCKS, cache_dir
from streams.stack.recipe import Progress

COORDINATES = {
    "kafka.lock.toml": "org.apache.kafka:kafka_2.13:4.3.1",
    "kafka-logging.lock.toml": "org.slf4j:slf4j-simple:1.7.36",
}
_PARALLEL = 6
_ATTEMPTS = 3
_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Jar:
    """A locked jar; ``sha256`` is in hex."""

    group: str
    artifact: str
    version: str
    classifier: str
    sha256: str

    @property
    def filename(self) -> str:
        suffix = f"-{self.classifier}" if self.classifier else ""
        return f"{self.artifact}-{self.version}{suffix}.jar"


def locked_jars(locks: Path = LOCKS) -> tuple[Jar, ...]:
    """Every jar of every lock file.

    Raises:
        StackError: a lock file is missing or has a jar without a checksum.
    """
    jars: dict[str, Jar] = {}
    for name in COORDINATES:
        path = locks / name
        try:
            entries = tomllib.loads(path.read_text())["dependencies"]
            for e in entries:
                jar = Jar(
                    e["groupId"],
                    e["artifactId"],
                    e["version"],
                    e.get("classifier", ""),
                    e["sha256"],
                )
                jars.setdefault(jar.filename, jar)
        except (OSError, KeyError, tomllib.TOMLDecodeError) as exc:
            raise StackError(f"{path}: not a lock file of Kafka's jars: {exc!r}") from exc
    return tuple(jars.values())


def jar_dir() -> Path:
    return cache_dir() / "jars"


def classpath(jars: tuple[Jar, ...], folder: Path) -> str:
    return os.pathsep.join(str(folder / jar.filename) for jar in jars)


def missing(jars: tuple[Jar, ...], folder: Path) -> list[Jar]:
    """Those that are not in ``folder`` with the locked checksum."""
    return [jar for jar in jars if _sha256(folder / jar.filename) != jar.sha256]


async def ensure_jars(jars: tuple[Jar, ...], folder: Path, on_progress: Progress) -> None:
    """Fetch what is missing. Safe beside another process that does the same.

    Raises:
        StackError: a jar can't be fetched, or what came is not what was locked.
    """
    wanted = await asyncio.to_thread(missing, jars, folder)
    if not wanted:
        return
    loop = asyncio.get_running_loop()

    def say(text: str) -> None:
        loop.call_soon_threadsafe(on_progress, text)

    await asyncio.to_thread(_fetch_all, wanted, folder, say)


def _fetch_all(wanted: list[Jar], folder: Path, say: Progress) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    say(f"kafka: fetching {len(wanted)} jars, once, into {folder}")
    pool = ThreadPoolExecutor(_PARALLEL)
    try:
        fetches = [pool.submit(_fetch, jar, folder) for jar in wanted]
        for count, fetch in enumerate(as_completed(fetches), start=1):
            fetch.result()
            if count % 5 == 0 or count == len(wanted):
                say(f"kafka: {count} of {len(wanted)} jars")
    finally:
        pool.shutdown(cancel_futures=True)


def _fetch(jar: Jar, folder: Path) -> None:
    """Into a folder of its own first, so that a jar is in ``folder`` whole or not at all."""
    problem = ""
    for _ in range(_ATTEMPTS):
        staging = Path(tempfile.mkdtemp(prefix=".fetch-", dir=folder))
        try:
            context = _maven(staging)
            component = context.project(jar.group, jar.artifact).at_version(jar.version)
            got = Path(component.artifact(jar.classifier).resolve())
            found = _sha256(got)
            if found == jar.sha256:
                got.replace(folder / jar.filename)
                return
            problem = f"its SHA-256 is {found}, the lock file has {jar.sha256}"
        except (OSError, RuntimeError) as exc:  # requests' errors are OSErrors
            problem = str(exc)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    raise StackError(f"can't fetch {jar.group}:{jar.artifact}:{jar.version}: {problem}")


def _maven(repo_cache: Path) -> Any:  # jgo's MavenContext has no types
    """Where jars come from is jgo's default, and what the user's own jgo settings add."""
    try:
        from jgo.config import GlobalSettings  # noqa: PLC0415  an optional dependency
        from jgo.maven import MavenContext  # noqa: PLC0415
    except ImportError as exc:
        raise StackError(
            "jgo is missing: pip install 'inference-meter[embedded]', or give --kafka"
        ) from exc
    context = MavenContext(repo_cache=repo_cache, timeout=_TIMEOUT_S)
    context.remote_repos.update(GlobalSettings.load().repositories)
    return context


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def make_locks(locks: Path = LOCKS) -> None:
    """Resolve every coordinate and write its lock file, jars sorted by name."""
    import jgo  # noqa: PLC0415  an optional dependency
    from jgo.env import LockedDependency, LockFile  # noqa: PLC0415

    for name, coordinate in COORDINATES.items():
        with tempfile.TemporaryDirectory() as cache:
            context = _maven(Path(cache))
            wanted = context.create_dependency(coordinate)
            inputs, others = context.resolver.resolve([wanted])
            locked = [LockedDependency.from_dependency(d) for d in (*inputs, *others)]
        locked.sort(key=lambda d: (d.groupId, d.artifactId))
        lock = LockFile(
            locked, environment_name=coordinate, min_java_version=17, jgo_version=jgo.__version__
        )
        lock.save(locks / name)
        print(f"{locks / name}: {len(locked)} jars", file=sys.stderr)


if __name__ == "__main__":
    make_locks()

"""Kafka's jars: the lock files, and what counts as being there."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from metering.errors import StackError
from streams.stack.jars import COORDINATES, Jar, classpath, ensure_jars, locked_jars, missing
from streams.stack.places import LOCKS, cache_dir


def jar(name: str, content: bytes) -> Jar:
    return Jar("org.example", name, "1.0", "", hashlib.sha256(content).hexdigest())


def test_the_locks_hold_what_the_coordinates_say() -> None:
    locked = {(j.group, j.artifact, j.version) for j in locked_jars()}
    for coordinate in COORDINATES.values():
        assert tuple(coordinate.split(":")) in locked


def test_every_locked_jar_has_a_checksum_and_a_name_of_its_own() -> None:
    jars = locked_jars()
    assert all(re.fullmatch("[0-9a-f]{64}", j.sha256) for j in jars)
    assert len({j.filename for j in jars}) == len(jars)


def test_the_logging_binding_is_of_the_version_that_kafka_speaks() -> None:
    versions = {j.version for j in locked_jars() if j.artifact in ("slf4j-api", "slf4j-simple")}
    assert len(versions) == 1


def test_no_lock_names_a_host() -> None:
    assert not [name for name in COORDINATES if "://" in (LOCKS / name).read_text()]


def test_a_jar_with_another_content_counts_as_missing(tmp_path: Path) -> None:
    good, bad, absent = jar("good", b"good"), jar("bad", b"bad"), jar("absent", b"absent")
    (tmp_path / good.filename).write_bytes(b"good")
    (tmp_path / bad.filename).write_bytes(b"bad, and more")
    assert missing((good, bad, absent), tmp_path) == [bad, absent]


async def test_nothing_is_fetched_when_all_are_there(tmp_path: Path) -> None:
    there = jar("there", b"there")
    (tmp_path / there.filename).write_bytes(b"there")
    said: list[str] = []
    await ensure_jars((there,), tmp_path, said.append)
    assert said == []


def test_the_classpath_has_the_locked_jars_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "stray.jar").write_bytes(b"")
    one, two = jar("one", b"1"), jar("two", b"2")
    paths = classpath((one, two), tmp_path).split(":")
    assert paths == [str(tmp_path / "one-1.0.jar"), str(tmp_path / "two-1.0.jar")]


@pytest.mark.parametrize("content", ["", "[[dependencies]]\ngroupId = 'a'\n", "not = [toml"])
def test_a_broken_lock_is_named(tmp_path: Path, content: str) -> None:
    for name in COORDINATES:
        (tmp_path / name).write_text(content)
    with pytest.raises(StackError, match=r"kafka\.lock\.toml"):
        locked_jars(tmp_path)


def test_the_cache_honours_xdg_cache_home() -> None:
    assert cache_dir({"XDG_CACHE_HOME": "/x"}) == Path("/x/inference-meter")
    assert cache_dir({}) == Path.home() / ".cache" / "inference-meter"

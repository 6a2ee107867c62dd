"""Triton from its wheel: where the server, the Python backend and its stub are, and the command."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metering.errors import StackError
from streams.stack.models import link_models
from streams.stack.places import REPO
from streams.stack.ports import HOST
from streams.stack.probes import http_ok
from streams.stack.recipe import Recipe
from streams.stack.services import own_env
from streams.stack.stubs import StubWatch
from streams.stack.sweeper import remove_shm

# Anchored: a pattern that is not forwards every header that merely contains a match.
HEADER_PATTERN = r"(?i)^x-meter-(tenant|team|project|user|retry-of|gateway-token)$"
PACKAGES = ("metering", "triton_models")
_EXIT_TIMEOUT_S = 5
_ASK = (
    "import json, sys, sysconfig; print(json.dumps({"
    "'version': '%d.%d' % sys.version_info[:2], 'site': sysconfig.get_path('purelib'),"
    "'libs': [sysconfig.get_config_var('LIBDIR') or '', sys.base_prefix + '/lib',"
    "'/usr/lib/x86_64-linux-gnu', '/usr/lib64']}))"
)


@dataclass(frozen=True, slots=True)
class TritonInstall:
    """The parts of ``nvidia-pytriton`` in an environment, and that environment's libpython."""

    env: Path
    python_version: str
    server: Path
    backend: Path
    stub: Path
    libs: Path
    libpython_dir: Path


@dataclass(frozen=True, slots=True)
class TritonPorts:
    http: int
    grpc: int
    metrics: int


def find_triton(env: Path) -> TritonInstall:
    """Raises ``StackError`` naming what is missing in the environment."""
    python = env / "bin" / "python"
    try:
        told = json.loads(
            subprocess.run(
                [python, "-I", "-c", _ASK], capture_output=True, text=True, timeout=30, check=True
            ).stdout
        )
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        raise StackError(
            f"no environment of Triton in {env} (make env, or METER_TRITON_ENV): {exc}"
        ) from exc
    version, site = told["version"], Path(told["site"])
    if os.pathsep in str(env):
        raise StackError(f"the environment {env} has {os.pathsep!r} in its path: move it")
    root = site / "pytriton" / "tritonserver"
    libpython = f"libpython{version}.so.1.0"
    holder = next((Path(d) for d in told["libs"] if d and (Path(d) / libpython).exists()), None)
    if holder is None:
        raise StackError(f"{env}: its Python has no {libpython}; make it with a shared one")
    found = TritonInstall(
        env=env,
        python_version=version,
        server=root / "bin" / "tritonserver",
        backend=root / "backends" / "python",
        stub=root / "python_backend_stubs" / version / "triton_python_backend_stub",
        libs=site / "nvidia_pytriton.libs",
        libpython_dir=holder,
    )
    for part in (found.server, found.backend, found.stub, found.libs):
        if not part.exists():
            raise StackError(f"{env}: {part} is missing; install locks/triton.txt there")
    return found


def shm_prefix() -> str:
    """One per stack: two with the same prefix would remove each other's shared memory."""
    return f"meter_{secrets.token_hex(4)}_"


def triton_recipe(
    *,
    install: TritonInstall,
    folder: Path,
    models: Mapping[str, Path],
    load: tuple[str, ...],
    ports: TritonPorts,
    shm: str,
    extra_env: Mapping[str, str],
) -> Recipe:
    """Loads those of ``models`` that ``load`` names; ready when every one of them is. ``folder``
    has a plain path (``streams.stack.paths``), the models' own folders may have any."""
    backends, repository = folder / "backends", folder / "models"

    async def prepare() -> None:
        _link_backend(install, backends / "python")
        link_models(models, repository)

    return Recipe(
        name="triton",
        argv=(str(install.server), *_arguments(backends, repository, load, ports, shm)),
        env=_env(install, extra_env),
        ready=http_ok(f"http://{HOST}:{ports.http}/v2/health/ready"),
        cwd=folder,
        prepare=prepare,
        clean=lambda: remove_shm(shm),
        watch=lambda: StubWatch(f"http://{HOST}:{ports.http}").look,
        start_timeout_s=180.0,
        stop_timeout_s=_EXIT_TIMEOUT_S + 7.0,
    )


def _arguments(
    backends: Path, repository: Path, models: tuple[str, ...], ports: TritonPorts, shm: str
) -> list[str]:
    gpu = Path("/proc/driver/nvidia/version").exists()
    return [
        f"--model-repository={repository}",
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in models),
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name={shm}",
        f"--http-address={HOST}",
        f"--http-port={ports.http}",
        f"--grpc-address={HOST}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={HOST}",
        f"--metrics-port={ports.metrics}",
        f"--http-header-forward-pattern={HEADER_PATTERN}",
        f"--grpc-header-forward-pattern={HEADER_PATTERN}",
        f"--allow-gpu-metrics={str(gpu).lower()}",
        "--strict-readiness=true",
        "--exit-on-error=true",
        f"--exit-timeout-secs={_EXIT_TIMEOUT_S}",
        "--log-format=ISO8601",
    ]


def _env(install: TritonInstall, extra: Mapping[str, str]) -> dict[str, str]:
    """The stub finds its Python by the PATH, as ``pytriton`` has it."""
    base = own_env(os.environ)
    for foreign in ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "LD_PRELOAD"):
        base.pop(foreign, None)
    libs = [str(install.libs), base.get("LD_LIBRARY_PATH", ""), str(install.libpython_dir)]
    return {
        **base,
        "PATH": f"{install.env / 'bin'}:{base.get('PATH', os.defpath)}",
        "PYTHONNOUSERSITE": "1",
        "LD_LIBRARY_PATH": ":".join(filter(None, libs)),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        **extra,
    }


def _link_backend(install: TritonInstall, folder: Path) -> None:
    """The backend and the stub of the right Python side by side, as Triton wants them.

    The stub runs isolated, so PYTHONPATH means nothing to it; but it searches the backend's
    folder for modules, and there the models find the project's packages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    backend = [part for part in install.backend.iterdir() if part.is_file()]
    for part in (*backend, install.stub, *(REPO / package for package in PACKAGES)):
        link = folder / part.name
        link.unlink(missing_ok=True)
        link.symlink_to(part)

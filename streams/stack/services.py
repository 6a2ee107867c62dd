"""The project's own processes: the ClickHouse endpoint, and one for each step."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from metering.variables import PREFIX
from sinks.health import HEALTH_PATH
from streams.settings import Settings
from streams.stack.ports import HOST
from streams.stack.probes import health_watch, http_ok
from streams.stack.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Service:
    """A module that takes its addresses from ``METER_*`` and serves its metrics on a port."""

    name: str
    module: str
    depends: tuple[str, ...]
    stops_after: tuple[str, ...] = ()


SERVICES = (
    # What Triton logs until its end is shipped.
    Service("shipper", "streams.shipper", ("topics",), stops_after=("triton",)),
    Service("sentinel", "streams.sentinel", ("topics",)),
    Service("worker", "streams.worker", ("topics", "schema")),
    Service("detector", "streams.detection", ("topics", "schema")),
    Service("reconciler", "streams.reconciler", ("topics", "schema")),
)


def service_recipe(service: Service, settings: Settings, metrics_port: int, cwd: Path) -> Recipe:
    """Ready when it says that its event loop runs; restarted when it says that it does not, or has
    said nothing for long."""
    own = settings.model_copy(update={"metrics_host": HOST, "metrics_port": metrics_port})
    return Recipe(
        name=service.name,
        argv=_module(service.module),
        env={**own_env(os.environ), **own.to_env()},
        ready=http_ok(health_url(metrics_port)),
        watch=partial(health_watch, health_url(metrics_port)),
        cwd=cwd,
        depends=service.depends,
        stops_after=service.stops_after,
    )


def clickhouse_recipe(folder: Path, database: str, port: int, cwd: Path) -> Recipe:
    """``database`` is that of clients that name none, such as curl."""
    return Recipe(
        name="clickhouse",
        argv=_module(
            *("sinks.embedded", "--path", str(folder), "--database", database),
            *("--host", HOST, "--port", str(port)),
        ),
        env=own_env(os.environ),
        ready=http_ok(f"http://{HOST}:{port}/ping"),
        cwd=cwd,
    )


def metrics_url(port: int) -> str:
    return f"http://{HOST}:{port}/metrics"


def health_url(port: int) -> str:
    return f"http://{HOST}:{port}{HEALTH_PATH}"


def own_env(env: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment without its ``METER_*``, which belong to another stack."""
    kept = {name: value for name, value in env.items() if not name.startswith(PREFIX)}
    return {**kept, "PYTHONUNBUFFERED": "1"}


def _module(name: str, *args: str) -> tuple[str, ...]:
    # -P: the working directory is not searched for modules.
    return (sys.executable, "-P", "-m", name, *args)

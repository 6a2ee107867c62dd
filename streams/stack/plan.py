"""From a configuration to addresses, settings and the list of units to run."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from metering.errors import StackError
from metering.variables import FILES_IN_TRITON, IN_TRITON
from sinks.clickhouse.connection import ClickHouseTarget
from sinks.clickhouse.schema import migrate
from streams.settings import Settings
from streams.stack.config import StackConfig
from streams.stack.kafka import kafka_recipe
from streams.stack.models import known_models
from streams.stack.places import REPO, triton_env
from streams.stack.ports import HOST, PortBook
from streams.stack.recipe import Progress, Step, Unit
from streams.stack.running import beside_grpc
from streams.stack.services import SERVICES, clickhouse_recipe, metrics_url, service_recipe
from streams.stack.topics_admin import ensure_topics
from streams.stack.triton import TritonPorts, find_triton, triton_recipe
from streams.targets import clickhouse_target

KAFKA_PORT, CONTROLLER_PORT, CLICKHOUSE_PORT = 9092, 9093, 8123
CALIBRATION_FILE = "calibration.toml"
TRITON_PORTS = TritonPorts(http=8000, grpc=8001, metrics=8002)
DEPENDS: dict[str, tuple[str, ...]] = {
    "kafka": (),
    "clickhouse": (),
    "triton": (),
    "topics": ("kafka",),
    "schema": ("clickhouse",),
    **{service.name: service.depends for service in SERVICES},
}


@dataclass(frozen=True, slots=True)
class Ports:
    """Taken once, so that a process that is restarted comes back where it was."""

    kafka: int
    controller: int
    clickhouse: int
    triton: TritonPorts
    metrics: dict[str, int]

    @classmethod
    def take(cls, book: PortBook, preferred: bool) -> Ports:
        def take(port: int) -> int:
            return book.take(port if preferred else None)

        return cls(
            kafka=take(KAFKA_PORT),
            controller=take(CONTROLLER_PORT),
            clickhouse=take(CLICKHOUSE_PORT),
            triton=TritonPorts(
                take(TRITON_PORTS.http), take(TRITON_PORTS.grpc), take(TRITON_PORTS.metrics)
            ),
            metrics={service.name: book.take() for service in SERVICES},
        )

    def metrics_urls(self) -> dict[str, str]:
        return {name: metrics_url(port) for name, port in self.metrics.items()}


def settings_for(config: StackConfig, folder: Path, ports: Ports, base: Settings) -> Settings:
    """``base`` has what the stack does not decide, such as the credentials of a Kafka that runs
    elsewhere; the stack's own Kafka and ClickHouse have none, whatever ``base`` says.

    Raises:
        StackError: ``config.triton`` is not HOST:PORT.
    """
    triton = ports.triton
    http, grpc, metrics = (f"{HOST}:{p}" for p in (triton.http, triton.grpc, triton.metrics))
    if config.triton is not None:
        http, grpc, metrics = beside_grpc(config.triton)
    own = Settings()
    changes: dict[str, object] = {
        name: getattr(own, name)
        for prefix, given in (("kafka_", config.kafka), ("clickhouse_", config.clickhouse))
        if given is None
        for name in Settings.model_fields
        if name.startswith(prefix)
    }
    changes |= {
        "kafka": config.kafka if config.kafka is not None else f"{HOST}:{ports.kafka}",
        "clickhouse": (
            config.clickhouse
            if config.clickhouse is not None
            else f"http://{HOST}:{ports.clickhouse}"
        ),
        "triton_grpc": grpc,
        "triton_http": http,
        "triton_metrics": metrics,
        "log_dir": folder / "usage-log",
        "state_dir": folder / "state",
        "price_book": (_price_book(config, base) or folder / "prices.toml").resolve(),
    }
    if base.kafka_ca_file is not None:  # the services work in another folder
        changes["kafka_ca_file"] = base.kafka_ca_file.resolve()
    for name in ("webhooks", "alert_floor_usd_per_hour", "log_max_bytes"):
        if (given := getattr(config, name)) is not None:
            changes[name] = given
    return base.model_copy(update=changes)


def _price_book(config: StackConfig, base: Settings) -> Path | None:
    """One that was named; ``None``: the folder's own."""
    if config.price_book is not None:
        return config.price_book
    return base.price_book if "price_book" in base.model_fields_set else None


def emitter_env(
    config: StackConfig, folder: Path, settings: Settings, env: Mapping[str, str]
) -> dict[str, str]:
    """What the models read, of ``env`` and then of ``config``; files are named in full."""
    given = {n: env[n] for n in IN_TRITON if n in env and config.models_see_environment}
    given |= {name: str(Path(given[name]).resolve()) for name in FILES_IN_TRITON & given.keys()}
    calibration = folder / CALIBRATION_FILE
    if "METER_CALIBRATION" not in given and calibration.is_file():
        given["METER_CALIBRATION"] = str(calibration)
    region, deployment = given.get("METER_REGION", "local"), given.get("METER_DEPLOYMENT", "dev")
    return {
        **given,
        "METER_LOG_DIR": str(settings.log_dir),
        "METER_LOG_MAX_BYTES": str(settings.log_max_bytes),
        "METER_REGION": region if config.region is None else config.region,
        "METER_DEPLOYMENT": deployment if config.deployment is None else config.deployment,
        **config.emitter_env,
    }


def plan(
    *,
    config: StackConfig,
    folder: Path,
    settings: Settings,
    ports: Ports,
    shm: str,
    on_progress: Progress,
    only: Collection[str] | None = None,
    triton_folder: Path | None = None,
) -> tuple[Unit, ...]:
    """Every unit that ``config`` asks for, or those of ``only`` and what they depend on.
    ``triton_folder`` leads to FOLDER/triton by a plain path, where that has none.

    Raises:
        StackError: a prerequisite is missing: Java, jars' locks, Triton's environment, a model;
            or ``only`` has a name that there is not.
    """
    logs = folder / "logs"
    names = set(DEPENDS) if only is None else with_dependencies(only)

    def wanted(name: str) -> bool:
        return name in names

    units: list[Unit] = []
    if config.kafka is None and wanted("kafka"):
        units.append(
            kafka_recipe(folder / "kafka", logs, ports.kafka, ports.controller, on_progress)
        )
    if config.clickhouse is None and wanted("clickhouse"):
        units.append(
            clickhouse_recipe(
                folder / "clickhouse", settings.clickhouse_database, ports.clickhouse, logs
            )
        )
    if config.triton is None and wanted("triton"):
        models, load = known_models(
            config.model_repository or REPO / "triton_models", config.models, config.model_folders
        )
        units.append(
            triton_recipe(
                install=find_triton(triton_env()),
                folder=folder / "triton" if triton_folder is None else triton_folder,
                models=models,
                load=load,
                ports=ports.triton,
                shm=shm,
                extra_env=emitter_env(config, folder, settings, os.environ),
            )
        )
    if wanted("topics"):
        make = partial(
            ensure_topics, settings, alter=config.kafka is None, partitions=config.partitions
        )
        units.append(Step("topics", make, DEPENDS["topics"]))
    if wanted("schema"):
        target = clickhouse_target(settings)
        units.append(Step("schema", lambda: _migrate(target), DEPENDS["schema"]))
    units.extend(
        service_recipe(service, settings, ports.metrics[service.name], logs)
        for service in SERVICES
        if wanted(service.name)
    )
    return tuple(units)


async def _migrate(target: ClickHouseTarget) -> None:
    await asyncio.to_thread(migrate, target)


def with_dependencies(only: Collection[str]) -> set[str]:
    """Raises ``StackError`` for a name that there is not."""
    wanted: set[str] = set()
    queue = list(only)
    while queue:
        name = queue.pop()
        if name not in DEPENDS:
            raise StackError(f"no process {name!r}; there are {', '.join(DEPENDS)}")
        if name not in wanted:
            wanted.add(name)
            queue.extend(DEPENDS[name])
    return wanted


def place_price_book(settings: Settings, folder: Path) -> None:
    """The project's price book is copied where FOLDER has none; an edited one is kept."""
    own = folder / "prices.toml"
    shipped = REPO / "deploy" / "prices.toml"
    if settings.price_book == own.resolve() and not own.exists() and shipped.exists():
        shutil.copyfile(shipped, own)

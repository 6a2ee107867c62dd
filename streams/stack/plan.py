"""From a configuration to addresses, settings and the list of units to run."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from metering.errors import StackError
from sinks.clickhouse.connection import ClickHouseTarget
from sinks.clickhouse.schema import migrate
from streams.settings import Settings
from streams.stack.config import StackConfig
from streams.stack.kafka import kafka_recipe
from streams.stack.places import REPO, triton_env
from streams.stack.ports import HOST, PortBook
from streams.stack.recipe import Progress, Step, Unit
from streams.stack.running import beside_grpc
from streams.stack.services import SERVICES, clickhouse_recipe, metrics_url, service_recipe
from streams.stack.topics_admin import ensure_topics
from streams.stack.triton import TritonPorts, check_models, find_triton, triton_recipe
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
        "price_book": (config.price_book or folder / "prices.toml").resolve(),
        "webhooks": config.webhooks,
        "alert_floor_usd_per_hour": config.alert_floor_usd_per_hour,
    }
    if config.log_max_bytes is not None:
        changes["log_max_bytes"] = config.log_max_bytes
    return base.model_copy(update=changes)


def plan(
    *,
    config: StackConfig,
    folder: Path,
    settings: Settings,
    ports: Ports,
    shm: str,
    on_progress: Progress,
    only: Collection[str] | None = None,
) -> tuple[Unit, ...]:
    """Every unit that ``config`` asks for, or those of ``only`` and what they depend on.

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
        repository = config.model_repository or REPO / "triton_models"
        check_models(repository, config.models)
        emitter = {
            "METER_LOG_DIR": str(settings.log_dir),
            "METER_LOG_MAX_BYTES": str(settings.log_max_bytes),
            "METER_REGION": config.region,
            "METER_DEPLOYMENT": config.deployment,
        }
        if (calibration := folder / CALIBRATION_FILE).is_file():
            emitter["METER_CALIBRATION"] = str(calibration)
        emitter |= config.emitter_env
        units.append(
            triton_recipe(
                install=find_triton(triton_env()),
                folder=folder / "triton",
                repository=repository,
                models=config.models,
                ports=ports.triton,
                shm=shm,
                extra_env=emitter,
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


def place_price_book(config: StackConfig, folder: Path) -> None:
    """The project's price book is copied where FOLDER has none; an edited one is kept."""
    own = folder / "prices.toml"
    shipped = REPO / "deploy" / "prices.toml"
    if config.price_book is None and not own.exists() and shipped.exists():
        shutil.copyfile(shipped, own)

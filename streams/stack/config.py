"""What a stack is asked to be, and where it then is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

MODELS = ("tiny_llm", "llama_8b_sim", "llama_70b_sim", "embedder")


@dataclass(frozen=True)
class StackConfig:
    """``kafka`` (HOST:PORT), ``clickhouse`` (URL) or ``triton`` (HOST:PORT of its gRPC) given
    means: use what already runs there. Such a Triton's HTTP is expected one port below its gRPC
    and its metrics one above, as Triton has them by default.

    What is ``None`` here is as the environment's ``METER_*`` say; where they say nothing either,
    ``price_book`` is FOLDER/prices.toml, copied from the project's where it is missing,
    ``region`` is ``local`` and ``deployment`` is ``dev``. ``models`` are those of
    ``model_repository``; every model in one of ``model_folders`` is loaded beside them.
    ``emitter_env`` is added to the environment of the models, which have the caller's variables
    for models unless ``models_see_environment`` is off. ``log_max_bytes`` is the usage
    log's cap, for whoever keeps to it; by default the settings'. Without ``preferred_ports`` the
    usual ports are left alone. ``partitions`` are of topics that are not there yet, by name,
    where they are not to have as many as usual.
    """

    folder: Path
    kafka: str | None = None
    clickhouse: str | None = None
    triton: str | None = None
    models: tuple[str, ...] = MODELS
    model_repository: Path | None = None
    model_folders: tuple[Path, ...] = ()
    price_book: Path | None = None
    webhooks: tuple[str, ...] | None = field(default=None, repr=False)
    alert_floor_usd_per_hour: float | None = None
    region: str | None = None
    deployment: str | None = None
    emitter_env: Mapping[str, str] = field(default_factory=dict)
    log_max_bytes: int | None = None
    preferred_ports: bool = True
    partitions: Mapping[str, int] = field(default_factory=dict)
    models_see_environment: bool = True


class Endpoints(BaseModel):
    """Where a running stack is. ``pids`` are those of its processes, each the leader of a group;
    ``metrics`` has the Prometheus URL of each of the project's own services.
    """

    model_config = ConfigDict(frozen=True)

    kafka: str
    clickhouse: str
    triton_grpc: str
    triton_http: str
    triton_metrics: str
    folder: Path
    log_dir: Path
    price_book: Path
    metrics: dict[str, str]
    pids: dict[str, int]
    supervisor_pid: int
    supervisor_started_ticks: int

"""Where everything is: read once from ``METER_*`` environment variables, then passed in."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FieldSerializationInfo,
    SecretStr,
    ValidationError,
    field_serializer,
)

from metering import variables
from metering.errors import MeteringError
from metering.variables import PREFIX
from streams.addresses import host_port

log = logging.getLogger(__name__)

METADATA_MAX_AGE_MS = 5_000
"""So long may a client go by what it was told of topics and their partitions. A broker that is just
back may know of none; a group that shares them out then has nothing to do until somebody asks
again, which by aiokafka's and Faust's default is after 5 minutes."""


HIDDEN = "**********"
SECRET_ADDRESSES = ("webhooks", "alertmanager", "clickhouse")
"""Settings whose addresses may hold a token, or a user and password."""


class InvalidSettings(MeteringError):
    """An environment variable has a value that can't be used; the message names it."""


def shown(address: str) -> str:
    """An address for people: user, password, path and query stay out, for each may be a secret."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        return HIDDEN if address else ""
    at = host if port is None else f"{host}:{port}"
    return f"{parts.scheme}://{at}" + ("/…" if parts.path.strip("/") or parts.query else "")


class Settings(BaseModel):
    """Addresses, files and credentials of every process. Secrets never show in a ``repr``, nor in
    what is dumped; nor do those within addresses."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    kafka: str = "127.0.0.1:9092"
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_username: str = ""
    kafka_password: SecretStr = SecretStr("")
    kafka_ca_file: Path | None = None
    clickhouse: str = "http://127.0.0.1:8123"
    clickhouse_user: str = "default"
    clickhouse_password: SecretStr = SecretStr("")
    clickhouse_database: str = "meter"
    clickhouse_cluster: str = ""
    triton_grpc: str = "127.0.0.1:8001"
    triton_http: str = "127.0.0.1:8000"
    triton_metrics: str = "127.0.0.1:8002"
    log_dir: Path = Path(".meter/usage-log")
    log_max_bytes: Annotated[int, Field(gt=0)] = 1024**3
    state_dir: Path = Path(".meter/state")
    price_book: Path = Path("deploy/prices.toml")
    webhooks: tuple[str, ...] = ()
    webhook_secret: SecretStr = SecretStr("")
    alertmanager: str = ""
    alert_floor_usd_per_hour: Annotated[float, Field(ge=0)] = 0.05
    """Low enough for a demo on one simulated GPU: raise it to what is worth somebody's time."""
    capacity_interval_s: Annotated[float, Field(gt=0, le=3600)] = 5.0
    reconcile_grace_s: Annotated[float, Field(ge=0, le=3600)] = 10.0
    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, _hidden(name, value)

    @field_serializer(*SECRET_ADDRESSES)
    def _serialized(self, value: Any, info: FieldSerializationInfo) -> Any:
        return _hidden(info.field_name, value)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read ``METER_KAFKA``, ``METER_CLICKHOUSE`` …; ``METER_WEBHOOKS`` is separated by commas.
        A ``METER_*`` variable that no process reads is logged as a warning.

        Raises:
            InvalidSettings: naming the variable and what is wrong with it, never its value.
        """
        for warning in misspelt(env):
            log.warning("%s", warning)
        given: dict[str, Any] = {
            name: env[PREFIX + name.upper()]
            for name in cls.model_fields
            if PREFIX + name.upper() in env
        }
        if "webhooks" in given:
            given["webhooks"] = tuple(u.strip() for u in given["webhooks"].split(",") if u.strip())
        try:
            return cls(**given)
        except ValidationError as exc:
            problems = "; ".join(
                f"{PREFIX}{str(p['loc'][0]).upper()}: {p['msg']}" for p in exc.errors()
            )
            raise InvalidSettings(problems) from exc

    def to_env(self) -> dict[str, str]:
        """The same settings as environment variables, for a child process."""
        env: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            elif isinstance(value, tuple):
                value = ",".join(value)
            env[PREFIX + name.upper()] = str(value)
        return env

    def kafka_client(self) -> dict[str, Any]:
        """Keyword arguments that every aiokafka client takes: address, TLS, SASL, and how often
        it asks for the topics.

        Raises:
            MeteringError: an address is none, or the file of certificates can't be used.
        """
        self._check_brokers()
        kwargs: dict[str, Any] = {
            "bootstrap_servers": self.kafka,
            "security_protocol": self.kafka_security_protocol,
            "metadata_max_age_ms": METADATA_MAX_AGE_MS,
        }
        if self.kafka_security_protocol in ("SSL", "SASL_SSL"):
            kwargs["ssl_context"] = self._ssl_context()
        if self.kafka_security_protocol.startswith("SASL"):
            kwargs["sasl_mechanism"] = self.kafka_sasl_mechanism
            kwargs["sasl_plain_username"] = self.kafka_username
            kwargs["sasl_plain_password"] = self.kafka_password.get_secret_value()
        return kwargs

    def _check_brokers(self) -> None:
        for broker in self.kafka.split(","):
            if not broker.strip():
                raise InvalidSettings(f"{PREFIX}KAFKA={self.kafka!r}: want HOST:PORT,HOST:PORT …")
            if ":" in broker:  # the client adds Kafka's own port to a host alone
                host_port(f"{PREFIX}KAFKA", broker)

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(
                cafile=None if self.kafka_ca_file is None else str(self.kafka_ca_file)
            )
        except OSError as exc:  # SSLError is one; neither names the file
            raise InvalidSettings(f"{PREFIX}KAFKA_CA_FILE={self.kafka_ca_file}: {exc}") from exc


def misspelt(env: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence for each ``METER_*`` variable that is set and that no process reads."""
    return variables.misspelt(env)


def _hidden(name: str | None, value: Any) -> Any:
    if name not in SECRET_ADDRESSES:
        return value
    return shown(value) if isinstance(value, str) else tuple(shown(v) for v in value)

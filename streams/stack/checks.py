"""What is checked before anything is started, because it would fail only after half a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from metering.errors import MeteringError, StackError
from metering.prices import read_price_book
from sinks.clickhouse.connection import connect
from sinks.http_post import checked_url
from sinks.webhook import key_of
from streams.addresses import host_port
from streams.settings import Settings
from streams.stack.config import StackConfig
from streams.stack.running import beside_grpc
from streams.targets import clickhouse_target

_CONNECT_S = 5.0


def check_settings(settings: Settings) -> None:
    """Files and addresses that the services would refuse.

    Raises:
        MeteringError: naming the setting and what is wrong with it; a webhook's path is not shown.
    """
    for url in settings.webhooks:
        _checked("--webhook or METER_WEBHOOKS", url)
    if settings.alertmanager:
        _checked("METER_ALERTMANAGER", settings.alertmanager)
    secret = settings.webhook_secret.get_secret_value()
    try:
        key_of(secret.encode())
    except MeteringError as exc:
        raise MeteringError(f"METER_WEBHOOK_SECRET: {exc}") from None
    settings.kafka_client()


def check_price_book(path: Path) -> None:
    """Raises ``InvalidPriceBook``, naming the file, the entry and the field."""
    read_price_book(path)


def check_addresses(config: StackConfig) -> None:
    """Raises ``MeteringError`` for an address that is none; nothing is connected to."""
    if config.triton is not None:
        beside_grpc(config.triton)
    if config.kafka is not None:
        brokers("--kafka", config.kafka)


async def check_reachable(config: StackConfig, settings: Settings) -> None:
    """Of what is used instead of being started.

    Raises:
        MeteringError: naming what does not answer, where, and the option.
    """
    if config.kafka is not None:
        await _reach_one("Kafka", "--kafka", brokers("--kafka", config.kafka))
    if config.triton is not None:
        await _reach_one("Triton", "--triton", [host_port("--triton", config.triton)])
    if config.clickhouse is not None:
        target = clickhouse_target(settings)
        client = await asyncio.to_thread(lambda: connect(target, database=""))
        client.close()


def brokers(option: str, text: str) -> list[tuple[str, int]]:
    return [host_port(option, part) for part in text.split(",")]


async def _reach_one(what: str, option: str, addresses: Sequence[tuple[str, int]]) -> None:
    problems = []
    for host, port in addresses:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), _CONNECT_S)
        except TimeoutError:
            problems.append(f"{host}:{port} did not answer within {_CONNECT_S:.0f} s")
        except OSError as exc:
            problems.append(f"{host}:{port}: {exc.strerror or exc}")
        else:
            writer.close()
            return
    raise StackError(
        f"{what} can't be reached: {'; '.join(problems)}. Is it running? Without {option} the "
        "stack starts its own"
    )


def _checked(setting: str, url: str) -> None:
    try:
        checked_url(url)
    except MeteringError as exc:
        raise MeteringError(f"{setting}: {exc}") from None

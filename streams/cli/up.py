"""``meter up``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streams.cli.common import (
    Narrator,
    dir_option,
    existing_options,
    json_option,
    models_option,
)

if TYPE_CHECKING:
    from streams.stack.config import Endpoints, StackConfig


@click.command(short_help="The whole stack on this machine, until Ctrl-C.")
@dir_option()
@existing_options
@models_option
@click.option(
    "--webhook",
    "webhooks",
    multiple=True,
    metavar="URL",
    help="Deliver anomalies to this URL, instead of those of METER_WEBHOOKS. May be given again.",
)
@json_option
def up(
    *,
    folder: Path,
    kafka: str | None,
    clickhouse: str | None,
    triton: str | None,
    model_folders: tuple[Path, ...],
    webhooks: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run the whole stack on this machine, on loopback, until Ctrl-C. Data stays in --dir.

    METER_* variables set what no option does: METER_WEBHOOKS, METER_PRICE_BOOK (default
    DIR/prices.toml), METER_ALERT_FLOOR_USD_PER_HOUR (default 0.05), METER_REGION and the others
    of streams/settings.py. The stack's own processes are where --kafka, --clickhouse and --triton
    say, not where METER_KAFKA, METER_CLICKHOUSE and METER_TRITON_GRPC do.
    """
    from streams.stack.config import StackConfig

    for text in own_addresses(os.environ, kafka, clickhouse, triton):
        click.echo(f"meter: {text}", err=True)
    config = StackConfig(
        folder=folder,
        kafka=kafka,
        clickhouse=clickhouse,
        triton=triton,
        model_folders=model_folders,
        webhooks=webhooks or None,
    )
    asyncio.run(_run(config, as_json))


def own_addresses(
    env: Mapping[str, str], kafka: str | None, clickhouse: str | None, triton: str | None
) -> list[str]:
    """A sentence for each address in ``env`` that is not used, as the stack starts its own."""
    given = {"KAFKA": kafka, "CLICKHOUSE": clickhouse, "TRITON_GRPC": triton}
    return [
        f"METER_{name} is set, but meter up starts its own; to use what runs there, "
        f"give --{name.partition('_')[0].lower()}."
        for name, option in given.items()
        if option is None and f"METER_{name}" in env
    ]


async def _run(config: StackConfig, as_json: bool) -> None:
    from streams.stack.stack import Stack

    narrator = Narrator()
    asked_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked_to_stop.set)
    asked = asyncio.create_task(asked_to_stop.wait())
    stack = Stack(config, narrator.say)
    starting = asyncio.create_task(stack.start())
    try:
        await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            return
        endpoints = starting.result()
        if as_json:
            click.echo(endpoints.model_dump_json())
        else:
            _tell(endpoints)
        watching = asyncio.create_task(stack.wait())
        done, _ = await asyncio.wait({watching, asked}, return_when=asyncio.FIRST_COMPLETED)
        if watching in done:
            watching.result()
        watching.cancel()
    finally:
        narrator.say("stopping")
        await stack.stop()


def _tell(endpoints: Endpoints) -> None:
    folder = shlex.quote(str(endpoints.folder))
    click.echo(
        f"""
  Triton      http://{endpoints.triton_http}   gRPC {endpoints.triton_grpc}
  Kafka       {endpoints.kafka}
  ClickHouse  {endpoints.clickhouse}
  prices      {endpoints.price_book}
  logs        {endpoints.folder / "logs"}

  Ask it:     meter sql --dir {folder} "SELECT tenant, sum(cost_usd) ..."
  Stop it:    Ctrl-C
"""
    )

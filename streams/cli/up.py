"""``meter up``."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import click

from streams.cli.common import Narrator, dir_option, existing_options, json_option
from streams.stack.config import Endpoints, StackConfig
from streams.stack.stack import Stack


@click.command(short_help="The whole stack on this machine, until Ctrl-C.")
@dir_option()
@existing_options
@click.option("--webhook", "webhooks", multiple=True, metavar="URL", help="Deliver anomalies here.")
@json_option
def up(
    *,
    folder: Path,
    kafka: str | None,
    clickhouse: str | None,
    triton: str | None,
    webhooks: tuple[str, ...],
    as_json: bool,
) -> None:
    """The whole stack on this machine, on loopback, until Ctrl-C. Data stays in --dir."""
    config = StackConfig(
        folder=folder, kafka=kafka, clickhouse=clickhouse, triton=triton, webhooks=webhooks
    )
    asyncio.run(_run(config, as_json))


async def _run(config: StackConfig, as_json: bool) -> None:
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
    click.echo(
        f"""
  Triton      http://{endpoints.triton_http}   gRPC {endpoints.triton_grpc}
  Kafka       {endpoints.kafka}
  ClickHouse  {endpoints.clickhouse}
  prices      {endpoints.price_book}
  logs        {endpoints.folder / "logs"}

  Ask it:     meter sql --dir {endpoints.folder} "SELECT tenant, sum(cost_usd) ..."
  Stop it:    Ctrl-C
"""
    )

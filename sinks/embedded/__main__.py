"""``python -m sinks.embedded --path DIR``: ClickHouse's engine on a port of this machine."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import click
from aiohttp import web

from metering.errors import MeteringError
from sinks.embedded.engine import DEFAULT_DATABASE, Engine
from sinks.embedded.limits import DEFAULT_MAX_BODY_BYTES, Limits
from sinks.embedded.request import Credentials
from sinks.embedded.server import Server

logger = logging.getLogger("sinks.embedded")

_MAX_URI_BYTES = 1 << 20
_GRACE_S = 2.0


async def serve(server: Server, host: str, port: int) -> None:
    """Until SIGTERM or SIGINT; queries that are running then have 2 s to end by themselves."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    runner = web.AppRunner(
        server.application(),
        handle_signals=False,
        handler_cancellation=True,
        auto_decompress=False,
        max_line_size=_MAX_URI_BYTES,
        max_field_size=_MAX_URI_BYTES,
        access_log=None,
        shutdown_timeout=_GRACE_S,
    )
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    bound_host, bound_port = runner.addresses[0][:2]
    shown = f"[{bound_host}]" if ":" in bound_host else bound_host
    print(f"listening on http://{shown}:{bound_port}", flush=True)
    await stopping.wait()
    logger.info("stopping")
    await runner.cleanup()
    await server.close()


@click.command()
@click.option("--path", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8123, show_default=True)
@click.option("--user", default="default", show_default=True)
@click.option("--password-file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--database",
    default=DEFAULT_DATABASE,
    show_default=True,
    help="Database of clients that name none; created if it is not there.",
)
@click.option("--max-concurrent-queries", type=click.IntRange(1), default=32, show_default=True)
@click.option(
    "--max-memory-bytes",
    type=click.IntRange(1),
    help="Memory of the engine, all queries together.  [default: half of the machine's]",
)
@click.option(
    "--max-query-memory-bytes",
    type=click.IntRange(1),
    help="max_memory_usage of a query that sets none.  [default: half of --max-memory-bytes]",
)
@click.option(
    "--max-body-bytes",
    type=click.IntRange(1),
    default=DEFAULT_MAX_BODY_BYTES,
    show_default=True,
    help="Size of a request's body, also after decompression.",
)
def main(  # noqa: PLR0917  click passes by name
    path: Path,
    host: str,
    port: int,
    user: str,
    password_file: Path | None,
    database: str,
    max_concurrent_queries: int,
    max_memory_bytes: int | None,
    max_query_memory_bytes: int | None,
    max_body_bytes: int,
) -> None:
    """Serve the ClickHouse database in DIR over HTTP. Port 0 takes one that is free."""
    memory = max_memory_bytes or Limits.of_machine().memory_bytes
    limits = Limits(
        memory_bytes=memory,
        query_memory_bytes=max_query_memory_bytes or max(1, memory // 2),
        body_bytes=max_body_bytes,
        concurrent_queries=max_concurrent_queries,
    )
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    password = password_file.read_text().rstrip("\r\n") if password_file is not None else ""
    try:
        with Engine(path, limits, database) as engine:
            logger.info("ClickHouse %s in %s", engine.version, path)
            server = Server(engine, Credentials(user, password), limits)
            asyncio.run(serve(server, host, port))
    except MeteringError as exc:
        raise click.ClickException(str(exc)) from exc
    except OSError as exc:
        raise click.ClickException(f"can't serve {path} on {host}:{port}: {exc}") from exc
    logger.info("stopped")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the engine's own exit handlers complain about an engine that is closed already


if __name__ == "__main__":
    main()

"""``python -m streams.worker``: the stream processor, until SIGTERM."""

from __future__ import annotations

import logging

import faust

from sinks.clickhouse.schema import migrate
from streams.settings import Settings
from streams.worker.app import clickhouse_target, make_app


def main() -> None:
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = Settings.from_env()
    migrate(clickhouse_target(settings))
    worker = faust.Worker(
        make_app(settings), loglevel="INFO", override_logging=False, redirect_stdouts=False
    )
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()

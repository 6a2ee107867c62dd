"""SIGUSR1 makes the process say where each of its tasks waits: for when it stands still."""

from __future__ import annotations

import asyncio
import io
import logging
import signal

log = logging.getLogger(__name__)


def tell_where(loop: asyncio.AbstractEventLoop) -> None:
    loop.add_signal_handler(signal.SIGUSR1, _tell, loop)


def _tell(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        said = io.StringIO()
        task.print_stack(limit=6, file=said)
        log.warning("%s", said.getvalue())

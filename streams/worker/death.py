"""The end of a worker that has met a bug."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

log = logging.getLogger(__name__)

EX_SOFTWARE = 70


@contextlib.contextmanager
def or_die() -> Iterator[None]:
    """An error that nobody foresaw ends the process at once, without a word to Kafka.

    Faust would restart the agent and go on behind the messages that failed, with a ledger that has
    half seen them. A new process begins where the saved ledger ends.
    """
    try:
        yield
    except Exception:
        log.critical("this is a bug; the worker ends and begins again", exc_info=True)
        logging.shutdown()
        os._exit(EX_SOFTWARE)

"""How the project's own processes log: to standard error, without what libraries say of
connections that are away. That is logged once by :mod:`sinks.outages`, in plain words."""

from __future__ import annotations

import logging
import re

from aiokafka.errors import KafkaError

from sinks.outages import COMPLAINT, OUTAGES, Outages

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
SILENT = ("urllib3", "clickhouse_connect", "mode.timers")
"""What they warn of is an error that is logged where it is handled, or a timer that waits for what
is away."""
_STREAMS = ("aiokafka", "faust", "mode")
"""How they begin, join and go is for whoever looks for a fault of theirs."""
_KAFKAS = "aiokafka"
_CONNECTION = re.compile(
    r"Unable (?:to )?connect|Unable to (?:update|request) metadata|NodeNotReady|ConnectionError|"
    r"[Cc]onnection (?:at|closed|reset|refused)|Connect call failed|RequestTimedOut|"
    r"Failed fetch messages|Coordinator (?:Request failed|NotAvailable)|NotCoordinator|"
    r"[Cc]oordinator (?:dead|is either)|CoordinatorLoad|NotLeader|LeaderNotAvailable|"
    r"Heartbeat (?:send|session|failed)|HeartbeatRequest|OffsetCommit failed"
)


class Vendors(logging.Filter):
    """Hands on what the project's own loggers say. Complaints of Kafka's client about connections
    become the beginning of an outage."""

    def __init__(self, outages: Outages = OUTAGES) -> None:
        super().__init__()
        self._outages = outages

    def filter(self, record: logging.LogRecord) -> bool:
        vendor, _, _ = record.name.partition(".")
        if record.levelno >= logging.CRITICAL:
            return True
        if vendor in SILENT or record.name in SILENT or _is_left_behind(record):
            return False
        if vendor in _STREAMS and record.levelno < logging.WARNING:
            return False
        if vendor != _KAFKAS:
            return True
        said = record.getMessage()
        if not _CONNECTION.search(said):
            return True
        self._outages.away("Kafka", COMPLAINT, f"Kafka does not answer: {said}")
        return False


def _is_left_behind(record: logging.LogRecord) -> bool:
    """Whether asyncio complains of a future of Kafka's client that nobody has asked. The client has
    several for one error, and raises that from one of them, where it is handled."""
    if record.name != "asyncio" or not record.exc_info:
        return False
    return isinstance(record.exc_info[1], KafkaError) and "never retrieved" in record.getMessage()


def set_up_logging() -> None:
    """Once, before anything else of the process logs. Adds nothing where logging is set up."""
    logging.basicConfig(level="INFO", format=FORMAT)
    for handler in logging.getLogger().handlers:
        handler.addFilter(Vendors())

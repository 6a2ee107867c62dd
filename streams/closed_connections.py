"""Connections to Kafka that are gone already when something is to be sent through them.

When a broker dies its connection is closed first, and its reader, which tells the client so, runs a
moment later. What is sent in that moment asyncio drops, and the answer fails once the reader has
run. uvloop refuses it with a RuntimeError instead, which aiokafka takes for nobody's: a worker
would take it for a bug of its own. With :func:`tell_closed_connections` it is the same
``KafkaConnectionError`` that comes a moment later.
"""

from __future__ import annotations

from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

_send = AIOKafkaConnection.send


def tell_closed_connections() -> None:
    """For every client of this process, from then on."""
    AIOKafkaConnection.send = _send_if_open


def _send_if_open(self: Any, *args: Any, **kwargs: Any) -> Any:
    if self._writer is not None and self._writer.transport.is_closing():
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {self.host}:{self.port} was closed")
    return _send(self, *args, **kwargs)

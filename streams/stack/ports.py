"""Ports on the loopback: the usual one where it is free, otherwise another that stays free."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from metering.errors import StackError

HOST = "127.0.0.1"
_LOWEST = 10_000
_TRIES = 200
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


class PortBook:
    """Ports that this process has taken; two stacks that start at once never get the same one.

    A taken port is marked by a socket in Linux's abstract namespace, which lives as long as this
    process and leaves no file. Free ports come from below the ephemeral range: a client that
    retries a dead server on an ephemeral port can connect to itself and so keep the server out.
    """

    def __init__(self) -> None:
        self._marks: dict[int, socket.socket] = {}

    def take(self, preferred: int | None = None) -> int:
        """``preferred`` if it is free, else a free one.

        Raises:
            StackError: no free port was found.
        """
        if preferred is not None and self._try(preferred):
            return preferred
        highest = max(_LOWEST + 1_000, _ephemeral_start() - 1)
        for _ in range(_TRIES):
            port = random.randint(_LOWEST, highest)  # noqa: S311  no secret
            if self._try(port):
                return port
        raise StackError(f"no free port on {HOST} between {_LOWEST} and {highest}")

    def release(self) -> None:
        for mark in self._marks.values():
            mark.close()
        self._marks.clear()

    def _try(self, port: int) -> bool:
        if port in self._marks:
            return False
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            mark.bind(f"\0inference-meter-port-{port}")
        except OSError:
            mark.close()
            return False
        if not is_free(port):
            mark.close()
            return False
        self._marks[port] = mark
        return True


def is_free(port: int) -> bool:
    """Could a server listen there now? (``SO_REUSEADDR``, as servers do.)"""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _ephemeral_start() -> int:
    try:
        return int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768

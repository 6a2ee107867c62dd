"""Addresses as people write them, ``HOST:PORT``; an IPv6 address is in brackets."""

from __future__ import annotations

from metering.errors import MeteringError


def host_port(option: str, text: str) -> tuple[str, int]:
    """Host without brackets, and port.

    Raises:
        MeteringError: naming the option, the value and what is wanted.
    """
    host, _, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or "/" in host or any(c.isspace() for c in host):
        raise MeteringError(f"{option} {text!r}: want HOST:PORT, such as localhost:9092")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65_536):
        raise MeteringError(f"{option} {text!r}: want HOST:PORT with a port from 1 to 65535")
    return host, int(port)

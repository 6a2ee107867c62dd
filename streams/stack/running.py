"""Which stack runs in a folder: what others than the stack itself want to know of it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from metering.errors import MeteringError, StackError
from streams.addresses import host_port
from streams.stack.config import Endpoints
from streams.stack.groups import read_process

ENDPOINTS_FILE = "endpoints.json"


def find_running(folder: Path) -> Endpoints | None:
    """The stack that runs in ``folder`` now; ``None`` if none does, or its supervisor is gone."""
    try:
        found = Endpoints.model_validate_json((folder / ENDPOINTS_FILE).read_bytes())
    except (OSError, ValidationError):
        return None
    process = read_process(found.supervisor_pid)
    if process is None or process.state in "ZX":
        return None
    if process.started_ticks != found.supervisor_started_ticks:
        return None
    return found


def beside_grpc(address: str) -> tuple[str, str, str]:
    """HTTP, gRPC and metrics of a Triton whose gRPC is at ``address``, as their defaults lie.

    Raises:
        StackError: it is not HOST:PORT.
    """
    try:
        host, port = host_port("--triton", address)
    except MeteringError as exc:
        raise StackError(f"{exc}; it is the address of its gRPC") from exc
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port - 1}", address.strip(), f"{host}:{port + 1}"

"""Which stack runs in a folder: what others than the stack itself want to know of it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from metering.errors import StackError
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
    """HTTP, gRPC and metrics of a Triton whose gRPC is at ``address``, as their defaults lie."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise StackError(f"triton={address!r}: HOST:PORT of its gRPC is wanted")
    return f"{host}:{int(port) - 1}", address, f"{host}:{int(port) + 1}"

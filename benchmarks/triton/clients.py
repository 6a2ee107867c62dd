"""Clients in a closed loop, in a process of their own: each sends when it has its answer.

``python -m benchmarks.triton.clients TRITON MODEL FILE`` goes on until its standard input is
closed, then writes what it has seen to FILE. A request that fails ends it.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
import uuid
from array import array
from bisect import bisect_left
from itertools import count
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # publishes no types
from tritonclient.grpc import service_pb2, service_pb2_grpc

CONCURRENCY = 64
CONNECTIONS = 4
TENANTS = 32
TIMEOUT_S = 60.0
_INT32 = struct.Struct("<i")


class Answers:
    """When each answer came, on the monotonic clock, and after how long, in seconds; in order."""

    def __init__(self) -> None:
        self.at_s = array("d")
        self.latency_s = array("d")

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            self.at_s.tofile(file)
            self.latency_s.tofile(file)

    @classmethod
    def read(cls, path: Path) -> Answers:
        both = array("d")
        both.frombytes(path.read_bytes())
        found = cls()
        found.at_s, found.latency_s = both[: len(both) // 2], both[len(both) // 2 :]
        return found

    def latencies_s(self, begin_s: float, end_s: float) -> list[float]:
        """Of those that came in between."""
        first, until = bisect_left(self.at_s, begin_s), bisect_left(self.at_s, end_s)
        return self.latency_s[first:until].tolist()


async def run(triton: str, model: str) -> Answers:
    """Until the standard input ends; raises what a request failed with."""
    answers, numbers, prefix = Answers(), count(), uuid.uuid4().hex[:23]
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, over.set)
    # Each its own connection: channels to one address would else share one.
    channels = [
        grpc.aio.insecure_channel(triton, options=(("grpc.use_local_subchannel_pool", 1),))
        for _ in range(CONNECTIONS)
    ]

    async def client(number: int) -> None:
        infer = service_pb2_grpc.GRPCInferenceServiceStub(channels[number % CONNECTIONS]).ModelInfer
        message = _message(model, number)
        while not over.is_set():
            message.id = f"{prefix}-{next(numbers):012d}"
            sent_s = time.monotonic()
            await infer(message, timeout=TIMEOUT_S)
            now_s = time.monotonic()
            answers.at_s.append(now_s)
            answers.latency_s.append(now_s - sent_s)

    try:
        async with asyncio.TaskGroup() as clients:
            for number in range(CONCURRENCY):
                clients.create_task(client(number))
    finally:
        for channel in channels:
            await channel.close()
    return answers


def _message(model: str, client: int) -> Any:
    """A ``ModelInferRequest`` of some tokens and a tenant, both the client's own."""
    message = service_pb2.ModelInferRequest(model_name=model)
    for name, tokens in (
        ("INPUT_TOKENS", 200 + 7 * client),
        ("CACHED_INPUT_TOKENS", 3 * client),
        ("OUTPUT_TOKENS", 20 + client),
    ):
        message.inputs.add(name=name, datatype="INT32", shape=(1, 1))
        message.raw_input_contents.append(_INT32.pack(tokens))
    tenant = client % TENANTS
    for name, value in (
        ("tenant", f"tenant-{tenant:02d}"),
        ("team", f"team-{tenant % 8}"),
        ("project", f"project-{tenant % 16:02d}"),
    ):
        message.parameters[name].string_param = value
    return message


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2])).write(Path(sys.argv[3]))

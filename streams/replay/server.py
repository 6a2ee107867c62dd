"""Asks Triton, before anything is sent, whether it is there and takes what a trace has."""

from __future__ import annotations

from collections.abc import Collection

import grpc  # type: ignore[import-untyped]  # publishes no types
from tritonclient.grpc import service_pb2, service_pb2_grpc

from metering.errors import MeteringError
from streams.addresses import host_port

_TIMEOUT_S = 10.0
INPUTS = frozenset({"INPUT_TOKENS", "CACHED_INPUT_TOKENS", "OUTPUT_TOKENS"})
OUTPUTS = frozenset({"INPUT_TOKENS", "OUTPUT_TOKENS"})


class Unservable(MeteringError):
    """Triton is away, or has no model that takes the rows; the message names both."""


async def check_server(triton: str, models: Collection[str]) -> None:
    """Of each model: it is loaded, takes the token counts of a row, and gives counts back.

    Raises:
        Unservable: saying what is missing and what to do; a wrong address is one too.
    """
    try:
        host_port("--triton", triton)
    except MeteringError as exc:
        raise Unservable(str(exc)) from exc
    async with grpc.aio.insecure_channel(triton) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            await stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as exc:
            raise Unservable(
                f"Triton at {triton} does not answer ({_reason(exc)}). Is it running? Start a "
                "stack with meter up, or name a Triton's gRPC with --triton HOST:PORT"
            ) from exc
        for model in sorted(models):
            await _check_model(stub, triton, model)


async def _check_model(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, triton: str, model: str
) -> None:
    ask = service_pb2.ModelMetadataRequest(name=model)
    try:
        told = await stub.ModelMetadata(ask, timeout=_TIMEOUT_S)
    except grpc.aio.AioRpcError as exc:
        loaded = ", ".join(await _loaded(stub)) or "none"
        raise Unservable(
            f"Triton at {triton} has no model {model!r} that is ready ({_reason(exc)}). "
            f"Loaded are: {loaded}. Name one with --model"
        ) from exc
    takes, gives = {i.name for i in told.inputs}, {o.name for o in told.outputs}
    if takes != INPUTS or not gives >= OUTPUTS:
        raise Unservable(
            f"the model {model!r} takes {_names(takes)} and gives {_names(gives)}; a trace has "
            f"token counts, so the model must take {_names(INPUTS)} and give {_names(OUTPUTS)}"
        )


async def _loaded(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> list[str]:
    try:
        index = await stub.RepositoryIndex(
            service_pb2.RepositoryIndexRequest(ready=True), timeout=_TIMEOUT_S
        )
    except grpc.aio.AioRpcError:
        return []
    return sorted({entry.name for entry in index.models})


def _names(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _reason(exc: grpc.aio.AioRpcError) -> str:
    return " ".join((exc.details() or exc.code().name).split())[:200]

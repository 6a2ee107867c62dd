"""Triton's counters as the sentinel reads them: what counts, what does not, what is not known."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from metering.capacity import BatchStats, Failures, ModelCounters
from metering.errors import MeteringError
from metering.wal_cap import hold_writer_lock
from streams.sentinel.beat import take
from streams.sentinel.boots import Boot, living_boots
from streams.sentinel.counters import ask_counters
from streams.sentinel.triton import TritonCounters, failures_of
from streams.settings import Settings

EXPOSITION = """
# HELP nv_inference_request_failure Number of failed inference requests, all batch sizes
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="tiny",reason="REJECTED",version="1"} 3
nv_inference_request_failure{model="tiny",reason="BACKEND",version="1"} 2
nv_inference_request_failure{model="tiny",reason="CANCELED",version="1"} 1
nv_inference_request_failure{model="tiny",reason="OTHER",version="1"} 4
nv_inference_request_failure{model="tiny",reason="SOMETHING_NEW",version="1"} 5
nv_inference_request_failure{model="tiny",reason="BACKEND",version="2"} 7
# HELP nv_inference_count Number of inferences performed
# TYPE nv_inference_count counter
nv_inference_count{model="tiny",version="1"} 99
"""


class Server(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Speaks Triton's protocol; ``tiny`` and ``embedder`` are to be metered."""

    def __init__(self) -> None:
        self.unmetered = {"tokenizer"}
        self.unloaded: set[str] = set()
        self.broken: set[str] = set()

    async def ModelStatistics(  # noqa: N802, RUF100  the protocol's name
        self, request: object, context: object
    ) -> object:
        def stats(name: str, *found: tuple[int, int, int]) -> object:
            return service_pb2.ModelStatistics(
                name=name,
                version="1",
                inference_count=17,
                inference_stats=service_pb2.InferStatistics(
                    success=service_pb2.StatisticDuration(count=12),
                    cache_hit=service_pb2.StatisticDuration(count=2),
                    cache_miss=service_pb2.StatisticDuration(count=10),
                    queue=service_pb2.StatisticDuration(count=12, ns=77),
                    compute_infer=service_pb2.StatisticDuration(count=17, ns=10**12),
                ),
                batch_stats=[
                    service_pb2.InferBatchStatistics(
                        batch_size=size,
                        compute_infer=service_pb2.StatisticDuration(count=count, ns=ns),
                    )
                    for size, count, ns in found
                ],
            )

        names = ("tiny", "ensemble", "front", "tokenizer", "embedder")
        return service_pb2.ModelStatisticsResponse(
            model_stats=[stats(name, (1, 2, 300), (5, 3, 900)) for name in names]
        )

    async def ModelConfig(  # noqa: N802, RUF100  the protocol's name
        self, request: service_pb2.ModelConfigRequest, context: Any
    ) -> object:
        if request.name in self.unloaded | self.broken:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, f"{request.name} is not at ready state"
            )
        config = model_config_pb2.ModelConfig(name=request.name)
        if request.name == "ensemble":
            config.ensemble_scheduling.step.add(model_name="tiny")
        if request.name == "front":
            config.parameters["target"].string_value = "tiny"
        if request.name in self.unmetered:
            config.parameters["metered"].string_value = "false"
        return service_pb2.ModelConfigResponse(config=config)

    async def ModelReady(  # noqa: N802, RUF100  the protocol's name
        self, request: service_pb2.ModelReadyRequest, context: object
    ) -> object:
        return service_pb2.ModelReadyResponse(ready=request.name not in self.unloaded)


@pytest.fixture
async def triton() -> AsyncIterator[tuple[Settings, Server]]:
    served = Server()
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(served, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=EXPOSITION)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    metrics_port = runner.addresses[0][1]
    yield (
        Settings(triton_grpc=f"127.0.0.1:{port}", triton_metrics=f"127.0.0.1:{metrics_port}"),
        served,
    )
    await runner.cleanup()
    await server.stop(None)


@pytest.fixture
def nobody() -> Iterator[str]:
    """Bound and not listening: nobody else gets the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


async def test_an_execution_counts_once_and_what_hands_on_or_is_exempt_does_not(
    triton: tuple[Settings, Server],
) -> None:
    settings, _ = triton
    async with TritonCounters(settings) as counters:
        embedder, tiny = await counters.ask()
    assert tiny == ModelCounters(
        model="tiny",
        version="1",
        successes=12,
        failures=Failures(rejected=3, cancelled=1, backend=2, other=9),
        cache_hits=2,
        cache_misses=10,
        queue_ns=77,
        batch_stats=(
            BatchStats(size=1, executions=2, compute_infer_ns=300),
            BatchStats(size=5, executions=3, compute_infer_ns=900),
        ),
    )
    assert (tiny.executions, tiny.rows, tiny.gpu_ns) == (5, 17, 1_200)
    assert embedder.model == "embedder"
    assert embedder.failures is None, "the metrics do not speak of it"


async def test_a_model_that_is_loaded_again_is_counted_as_it_is_configured_now(
    triton: tuple[Settings, Server],
) -> None:
    settings, server = triton

    async def names() -> list[str]:
        return [c.model for c in await counters.ask()]

    async with TritonCounters(settings) as counters:
        assert await names() == ["embedder", "tiny"]
        server.unmetered = {"tiny"}
        assert await names() == ["embedder", "tokenizer"]
        server.unmetered = set()
        assert await names() == ["embedder", "tiny", "tokenizer"]


async def test_a_model_that_is_unloaded_just_now_does_not_hide_the_others(
    triton: tuple[Settings, Server],
) -> None:
    settings, server = triton
    server.unloaded = {"tiny"}
    async with TritonCounters(settings) as counters:
        assert [c.model for c in await counters.ask()] == ["embedder"]


async def test_a_loaded_model_whose_configuration_is_not_told_is_no_reason_to_count_without_it(
    triton: tuple[Settings, Server],
) -> None:
    settings, server = triton
    server.broken = {"tiny"}
    async with TritonCounters(settings) as counters:
        with pytest.raises(MeteringError, match="tiny is not at ready state"):
            await counters.ask()


async def test_without_metrics_the_reasons_of_failures_are_not_known(
    triton: tuple[Settings, Server], nobody: str
) -> None:
    settings = triton[0].model_copy(update={"triton_metrics": nobody})
    async with TritonCounters(settings) as counters:
        assert [c.failures for c in await counters.ask()] == [None, None]


async def test_a_server_that_does_not_answer_is_an_error_that_says_what_to_do(nobody: str) -> None:
    async with TritonCounters(Settings(triton_grpc=nobody)) as counters:
        for _ in range(2):
            with pytest.raises(MeteringError, match="meter up") as error:
                await asyncio.wait_for(counters.ask(), 30)
            assert nobody in str(error.value)


def test_what_is_no_exposition_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"."):
        failures_of("nv_inference_request_failure{model= 7")
    assert failures_of("") == {}


def source(log_dir: Path, name: str) -> int:
    """A living instance; its lock."""
    folder = log_dir / name
    folder.mkdir(parents=True)
    held = hold_writer_lock(folder)
    assert held is not None
    return held


def end(lock: int) -> None:
    os.close(lock)


COUNTERS = ModelCounters(
    model="tiny", version="1", successes=0, failures=None, cache_hits=0, cache_misses=0,
    queue_ns=0, batch_stats=(),
)  # fmt: skip


async def answers() -> tuple[ModelCounters, ...]:
    return (COUNTERS,)


async def test_the_server_is_the_one_whose_instances_hold_their_logs(tmp_path: Path) -> None:
    gone = source(tmp_path, "h/before/1/tiny_0")
    end(gone)
    locks = [source(tmp_path, f"h/now/{pid}/tiny_0") for pid in (1, 2)]
    (tmp_path / ".devices").mkdir()
    assert living_boots(tmp_path) == {Boot("h", "now")}
    assert (await ask_counters(tmp_path, answers)).boot == Boot("h", "now")
    beat, silence = await take(tmp_path, answers)
    assert (beat.host, beat.boot_id, beat.models, silence) == ("h", "now", (COUNTERS,), "")
    for lock in locks:
        end(lock)
    beat, silence = await take(tmp_path, answers)
    assert (beat.boot_id, beat.models, beat.triton_answers) == (None, (), True)
    assert "0 servers" in silence


async def test_no_counters_are_claimed_while_one_server_takes_over_from_another(
    tmp_path: Path,
) -> None:
    locks = [source(tmp_path, "h/before/1/tiny_0")]

    async def restarted_meanwhile() -> tuple[ModelCounters, ...]:
        end(locks.pop())
        locks.append(source(tmp_path, "h/now/2/tiny_0"))
        return (COUNTERS,)

    beat, silence = await take(tmp_path, restarted_meanwhile)
    assert (beat.boot_id, beat.models) == (None, ())
    assert "2 servers" in silence
    locks.append(source(tmp_path, "h/other/3/tiny_0"))
    assert (await take(tmp_path, answers))[0].models == ()
    for lock in locks:
        end(lock)


async def test_a_heartbeat_without_triton_says_so(tmp_path: Path) -> None:
    async def silent() -> tuple[ModelCounters, ...]:
        raise MeteringError("Triton does not answer")

    beat, silence = await take(tmp_path, silent)
    assert not beat.triton_answers
    assert (beat.models, silence) == ((), "Triton does not answer")
    assert beat.time_ns <= beat.asked_ns

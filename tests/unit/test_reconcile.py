"""Metered usage against the server's counters: what agrees, and what is told apart."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
from rich.console import Console
from tritonclient.grpc import service_pb2, service_pb2_grpc

from metering.errors import MeteringError
from sinks.clickhouse.queries import Metered
from streams.reconcile import (
    FIRST_EXECUTION_NS,
    TOLERANCE,
    ServerCounters,
    Verdict,
    reconcile,
    server_counters,
)
from streams.reconcile_table import verdict_table

NS = 10**9


def verdict(server: tuple[int, int, int], metered: tuple[int, int, int]) -> Verdict:
    return Verdict(ServerCounters("tiny", *server), ServerCounters("tiny", *metered))


def test_equal_counts_and_a_little_less_time_agree() -> None:
    assert verdict((10, 40, 100 * NS), (10, 40, 99 * NS)).agrees
    assert verdict((10, 40, 100 * NS), (10, 40, 100 * NS)).agrees


@pytest.mark.parametrize("gpu_ns", [100 * NS + 1, 200 * NS, 89 * NS, 0])
def test_more_time_than_the_server_has_or_much_less_does_not_agree(gpu_ns: int) -> None:
    found = verdict((10, 40, 100 * NS), (10, 40, gpu_ns))
    assert not found.gpu_time_matches
    assert not found.agrees
    assert found.executions_match
    assert found.rows_match


def test_what_may_be_missing_is_a_part_and_what_a_first_execution_takes() -> None:
    allowed_ns = round(100 * NS * TOLERANCE) + FIRST_EXECUTION_NS
    assert verdict((1, 1, 100 * NS), (1, 1, 100 * NS - allowed_ns)).agrees
    assert not verdict((1, 1, 100 * NS), (1, 1, 100 * NS - allowed_ns - 1)).agrees


@pytest.mark.parametrize(("executions", "rows"), [(9, 40), (11, 40), (10, 39), (10, 41)])
def test_one_execution_or_row_more_or_less_does_not_agree(executions: int, rows: int) -> None:
    assert not verdict((10, 40, 1_000), (executions, rows, 1_000)).agrees


def test_a_model_that_has_done_nothing_agrees_with_nothing_metered_and_has_no_ratio() -> None:
    idle = verdict((0, 0, 0), (0, 0, 0))
    assert idle.agrees
    assert idle.gpu_time_ratio is None
    assert not verdict((0, 0, 0), (0, 0, 1)).agrees


def test_every_model_that_either_side_knows_is_compared() -> None:
    server = [ServerCounters("b", 1, 2, 3), ServerCounters("a", 4, 5, 6)]
    metered = [Metered("b", "boot", 1, 2, 3), Metered("c", "boot", 7, 8, 9)]
    verdicts = reconcile(server, metered)
    assert [v.server.model for v in verdicts] == ["a", "b", "c"]
    assert [v.metered.model for v in verdicts] == ["a", "b", "c"]
    assert [v.agrees for v in verdicts] == [False, True, False]
    assert verdicts[0].as_json() == {
        "executions": {"server": 4, "metered": 0},
        "rows": {"server": 5, "metered": 0},
        "gpu_ns": {"server": 6, "metered": 0},
    }


def shown(verdicts: Sequence[Verdict]) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(verdict_table(verdicts))
    return out.getvalue()


def test_the_table_shows_both_numbers_where_they_differ() -> None:
    text = shown([verdict((1_000, 40, 10**9), (999, 40, 9 * 10**8))])
    assert "999 of 1,000" in text
    assert "90.0%" in text
    assert "–" in shown([verdict((0, 0, 0), (0, 0, 0))])


class Statistics(service_pb2_grpc.GRPCInferenceServiceServicer):
    """A server that speaks Triton's protocol and has fixed statistics."""

    async def ModelStatistics(  # noqa: N802, RUF100  the protocol's name
        self, request: object, context: object
    ) -> object:
        def batches(*found: tuple[int, int, int]) -> list[object]:
            return [
                service_pb2.InferBatchStatistics(
                    batch_size=size,
                    compute_infer=service_pb2.StatisticDuration(count=count, ns=ns),
                )
                for size, count, ns in found
            ]

        per_request = service_pb2.InferStatistics(
            compute_infer=service_pb2.StatisticDuration(count=17, ns=10**12)
        )
        return service_pb2.ModelStatisticsResponse(
            model_stats=[
                service_pb2.ModelStatistics(
                    name="tiny",
                    inference_count=17,
                    execution_count=5,
                    inference_stats=per_request,
                    batch_stats=batches((1, 2, 300), (5, 3, 900)),
                ),
                service_pb2.ModelStatistics(name="ensemble", inference_count=17),
                service_pb2.ModelStatistics(name="embedder", batch_stats=batches((8, 1, 40))),
            ]
        )


@pytest.fixture
async def statistics() -> AsyncIterator[str]:
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Statistics(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def test_an_execution_is_counted_once_however_many_requests_were_in_it(
    statistics: str,
) -> None:
    assert await server_counters(statistics) == [
        ServerCounters("embedder", 1, 8, 40),
        ServerCounters("ensemble", 0, 0, 0),
        ServerCounters("tiny", 5, 17, 1_200),
    ]


async def test_a_server_that_does_not_answer_is_an_error_that_says_what_to_do() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(MeteringError, match="meter up") as error:
            await asyncio.wait_for(server_counters(address), 30)
    assert address in str(error.value)

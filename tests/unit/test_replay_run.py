"""A replay fails before it sends where it must fail, and reports whatever happened on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import grpc  # type: ignore[import-untyped]  # publishes no types
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from sinks.clickhouse.queries import UnitCost
from streams.cli.replay import _total
from streams.replay.load_result import Cohort, LoadResult, Progress, Tally
from streams.replay.plan import PlannedRequest, TokenPrompt
from streams.replay.run import Charged, Counts, ReplayReport, progress_line, run_replay
from streams.replay.server import Unservable, check_server
from streams.settings import Settings

TOKENS = ("INPUT_TOKENS", "CACHED_INPUT_TOKENS", "OUTPUT_TOKENS")


class Server(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # an untyped base
    """Has two models: one takes token counts, one takes text. Answers the first."""

    def __init__(self) -> None:
        self.address = ""
        self.asked = 0

    async def ServerLive(self, _request: Any, _context: Any) -> Any:
        return service_pb2.ServerLiveResponse(live=True)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        if request.name not in ("counts", "texts"):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model: '{request.name}'")
        answer = service_pb2.ModelMetadataResponse(name=request.name)
        for name in TOKENS if request.name == "counts" else ("TEXT",):
            answer.inputs.add(name=name)
        for name in ("INPUT_TOKENS", "OUTPUT_TOKENS"):
            answer.outputs.add(name=name)
        return answer

    async def RepositoryIndex(self, _request: Any, _context: Any) -> Any:
        answer = service_pb2.RepositoryIndexResponse()
        answer.models.add(name="counts")
        answer.models.add(name="texts")
        return answer

    async def ModelInfer(self, request: Any, _context: Any) -> Any:
        self.asked += 1
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
        for position, name in ((0, "INPUT_TOKENS"), (2, "OUTPUT_TOKENS")):
            answer.outputs.add(name=name, datatype="INT32", shape=(1, 1))
            answer.raw_output_contents.append(request.raw_input_contents[position])
        return answer


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    served, running = Server(), grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(served, running)
    served.address = f"127.0.0.1:{running.add_insecure_port('127.0.0.1:0')}"
    await running.start()
    yield served
    await running.stop(0)


def request(number: int, model: str = "counts", at_s: float = 0.0) -> PlannedRequest:
    return PlannedRequest(
        at_s=at_s, model=model, tenant="acme", team="", project="", user="",
        inputs=TokenPrompt(10, 0, 5), request_id=f"p-{number}", retry_of=None, phase="replay",
    )  # fmt: skip


@pytest.mark.parametrize("address", ["localhost:99999", "localhost", "localhost:0", "a b:1", ""])
async def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(Unservable, match="HOST:PORT"):
        await check_server(address, {"counts"})


async def test_a_triton_that_is_away_is_named_with_what_to_do() -> None:
    with pytest.raises(Unservable, match=r"127\.0\.0\.1:1 does not answer.*meter up.*--triton"):
        await check_server("127.0.0.1:1", {"counts"})


async def test_a_model_that_is_not_there_is_refused_with_those_that_are(server: Server) -> None:
    with pytest.raises(Unservable, match=r"no model 'nope'.*Loaded are: counts, texts"):
        await check_server(server.address, {"counts", "nope"})


async def test_a_model_that_takes_something_else_is_refused(server: Server) -> None:
    with pytest.raises(Unservable, match=r"takes TEXT .*CACHED_INPUT_TOKENS"):
        await check_server(server.address, {"texts"})


async def test_no_row_is_sent_where_one_of_them_has_no_model(server: Server) -> None:
    settings = Settings(triton_grpc=server.address)
    plan = [request(1), request(2, model="nope")]
    with pytest.raises(Unservable):
        await run_replay(settings, plan, "p-", lambda _: None)
    assert server.asked == 0


async def test_a_replay_without_clickhouse_says_what_was_answered_and_that_costs_are_unknown(
    server: Server,
) -> None:
    settings = Settings(triton_grpc=server.address, clickhouse="http://127.0.0.1:1")
    report = await run_replay(settings, [request(n) for n in range(3)], "p-", lambda _: None)
    assert report.answered == Counts(3, 30, 15)
    assert (report.stored, report.charged) == (None, None)
    (problem,) = report.problems
    assert "127.0.0.1:1" in problem
    assert report.as_json()["cost_usd"] is None


async def test_an_interrupted_replay_reports_what_there_is(server: Server) -> None:
    settings = Settings(triton_grpc=server.address, clickhouse="http://127.0.0.1:1")
    stop = asyncio.Event()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        asyncio.get_running_loop().call_later(0.5, stop.set)

    plan = [request(1), request(2, at_s=3600.0)]
    report = await run_replay(settings, plan, "p-", say, stop)
    assert report.load.interrupted
    assert report.answered.requests == 1
    assert "stopped after 1 of 2 requests" in report.problems


COST = UnitCost(
    tenant="acme", model="m", requests=2, input_tokens=20, output_tokens=10, gpu_seconds=0.1,
    mean_batch_size=1.0, cost_usd=Decimal("0.004"), usd_per_million_input_tokens=None,
    usd_per_million_output_tokens=None, usd_per_request=Decimal("0.002"),
)  # fmt: skip
LOAD = LoadResult({Cohort("m", "acme", "replay"): Tally(2, 2)}, {}, 0.1, 0.2, 0.0, 1.0)
DONE = Counts(2, 20, 10)


def test_a_replay_that_went_well_has_no_problem_and_a_cost() -> None:
    charged = Charged([COST, replace(COST, tenant="globex")], 0)
    report = ReplayReport(DONE, DONE, DONE, LOAD, charged)
    assert report.problems == []
    assert report.as_json()["cost_usd"] == "0.008"


def test_the_cost_of_a_replay_without_any_price_is_not_known_and_not_0() -> None:
    unpriced = Charged([replace(COST, cost_usd=Decimal(0), usd_per_request=None)], 2)
    assert ReplayReport(DONE, DONE, DONE, LOAD, unpriced).as_json()["cost_usd"] is None
    assert _total(unpriced) == "No cost is known: 2 requests have no price, see meter top"
    mixed = Charged([COST, *unpriced.by_cohort], 2)
    assert _total(mixed) == "0.00400 USD in all; 2 requests have no price: see meter top"


def test_problems_are_sentences_and_no_objects() -> None:
    failed = LoadResult(
        {Cohort("m", "acme", "replay"): Tally(2, 1, 1)}, {"UNAVAILABLE: gone": 1}, 0.1, 0.2, 0, 1
    )
    report = ReplayReport(DONE, Counts(1, 10, 5), Counts(0, 0, 0), failed, Charged([], 0))
    assert report.problems == [
        "1 request failed: Triton could not be reached, or could not take the request (gone)",
        "stored are 0 requests with 0 input and 0 output tokens; "
        "answered 1 requests with 10 input and 5 output tokens",
    ]


def test_progress_shows_failures_and_their_most_frequent_reason() -> None:
    progress = Progress(5.0, 1.0, "replay", 3658, 270, 3088, 300, 0.0, "UNAVAILABLE: gone")
    assert progress_line(progress, 5000) == (
        "270 of 5,000 answered, 300 in flight, 3,088 failed; mostly UNAVAILABLE: gone"
    )
    assert progress_line(replace(progress, failed=0, worst=""), 5000).endswith("300 in flight")

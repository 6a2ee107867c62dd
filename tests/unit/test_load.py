"""The driver against a real gRPC server that stands in for Triton and remembers what came."""

from __future__ import annotations

import asyncio
import itertools
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import grpc  # type: ignore[import-untyped]  # publishes no types
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from metering.errors import InvalidTrace
from streams.replay.load import drive
from streams.replay.load_result import Cohort, LoadResult, Progress, Tally, sentence
from streams.replay.plan import InvalidPlan, PlannedRequest, TextPrompt, TextToEmbed, TokenPrompt


@dataclass(frozen=True)
class Arrival:
    """A request as the server saw it, its tensors decoded by their declared types."""

    at_s: float
    id: str
    model: str
    tensors: dict[str, object]
    shapes: dict[str, list[int]]
    parameters: dict[str, str]


@dataclass
class StandIn(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # an untyped base
    """Answers with one input token more and two output tokens more than it was asked for."""

    arrivals: list[Arrival] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    before: Callable[[Arrival, grpc.aio.ServicerContext], Any] | None = None
    after: Callable[[Any], None] | None = None
    address: str = ""

    async def ModelInfer(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        arrival = Arrival(
            time.monotonic(),
            request.id,
            request.model_name,
            {
                t.name: _decode(t.datatype, raw)
                for t, raw in zip(request.inputs, request.raw_input_contents, strict=True)
            },
            {t.name: list(t.shape) for t in request.inputs},
            {name: value.string_param for name, value in request.parameters.items()},
        )
        self.arrivals.append(arrival)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.before is not None:
                await self.before(arrival, context)
        finally:
            self.in_flight -= 1
        answer = self._answer(request, arrival.tensors)
        if self.after is not None:
            self.after(answer)
        return answer

    def _answer(self, request: Any, tensors: dict[str, Any]) -> Any:
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
        if request.model_name == "embedder":
            answer.outputs.add(name="EMBEDDING", datatype="FP32", shape=(1, 384))
            answer.raw_output_contents.append(bytes(4 * 384))
        if request.model_name == "tiny_llm":
            answer.outputs.add(name="TEXT", datatype="BYTES", shape=(1, 1))
            answer.raw_output_contents.append(struct.pack("<I", 2) + b"ok")
        text = tensors.get("TEXT", "")
        counts = {"INPUT_TOKENS": tensors.get("INPUT_TOKENS", len(text.split())) + 1}
        if request.model_name != "embedder":
            asked = "MAX_TOKENS" if request.model_name == "tiny_llm" else "OUTPUT_TOKENS"
            counts["OUTPUT_TOKENS"] = tensors[asked] + 2
        for name, count in counts.items():
            answer.outputs.add(name=name, datatype="INT32", shape=(1, 1))
            answer.raw_output_contents.append(struct.pack("<i", count))
        return answer


def _decode(datatype: str, raw: bytes) -> object:
    if datatype == "INT32":
        return struct.unpack("<i", raw)[0]
    assert datatype == "BYTES"
    assert len(raw) == 4 + struct.unpack_from("<I", raw)[0]
    return raw[4:].decode()


@pytest.fixture
async def triton() -> AsyncIterator[StandIn]:
    stand_in = StandIn()
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(stand_in, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stand_in.address = f"127.0.0.1:{port}"
    yield stand_in
    await server.stop(0)


def _request(number: int, at_s: float = 0.0, **fields: Any) -> PlannedRequest:
    plain = PlannedRequest(
        at_s=at_s,
        model="llama_8b_sim",
        tenant="acme",
        team="",
        project="",
        user="",
        inputs=TokenPrompt(400, 64, 60),
        request_id=f"r-{number}",
        retry_of=None,
        phase="calm",
    )
    return replace(plain, **fields)


async def _drive(
    requests: Any, triton: StandIn, *, max_in_flight: int = 256, timeout_s: float = 20.0
) -> LoadResult:
    return await drive(requests, triton.address, max_in_flight=max_in_flight, timeout_s=timeout_s)


async def test_a_token_request_arrives_with_its_id_its_tensors_and_its_identity(
    triton: StandIn,
) -> None:
    identity: dict[str, Any] = {
        "tenant": "acmé",
        "team": "search",
        "project": "ranking",
        "user": "ada",
    }
    await _drive([_request(1, retry_of="r-0", **identity)], triton)
    (arrival,) = triton.arrivals
    assert arrival.model == "llama_8b_sim"
    assert arrival.id == "r-1"
    assert arrival.tensors == {"INPUT_TOKENS": 400, "CACHED_INPUT_TOKENS": 64, "OUTPUT_TOKENS": 60}
    assert set(map(tuple, arrival.shapes.values())) == {(1, 1)}
    assert arrival.parameters == identity | {"retry_of": "r-0"}


async def test_identity_that_is_empty_is_not_sent(triton: StandIn) -> None:
    await _drive([_request(1)], triton)
    assert triton.arrivals[0].parameters == {"tenant": "acme"}


async def test_text_requests_carry_their_texts(triton: StandIn) -> None:
    prompt, text = TextPrompt("über ein paar Wörter", 16), TextToEmbed("")
    await _drive(
        [
            _request(1, model="tiny_llm", inputs=prompt),
            _request(2, model="embedder", inputs=text),
        ],
        triton,
    )
    assert [a.tensors for a in sorted(triton.arrivals, key=lambda a: a.id)] == [
        {"TEXT": "über ein paar Wörter", "MAX_TOKENS": 16},
        {"TEXT": ""},
    ]


async def test_tokens_are_counted_as_the_server_reported_them(triton: StandIn) -> None:
    result = await _drive(
        [
            _request(1, model="tiny_llm", inputs=TextPrompt("three short words", 10)),
            _request(2, model="embedder", inputs=TextToEmbed("two words"), tenant="globex"),
            _request(3),
            _request(4, phase="incident"),
        ],
        triton,
    )
    assert result.by_cohort == {
        Cohort("tiny_llm", "acme", "calm"): Tally(1, 1, 0, 4, 12),
        Cohort("embedder", "globex", "calm"): Tally(1, 1, 0, 3, 0),
        Cohort("llama_8b_sim", "acme", "calm"): Tally(1, 1, 0, 401, 62),
        Cohort("llama_8b_sim", "acme", "incident"): Tally(1, 1, 0, 401, 62),
    }
    assert result.total == Tally(4, 4, 0, 809, 136)
    assert result.by("tenant") == {"acme": Tally(3, 3, 0, 806, 136), "globex": Tally(1, 1, 0, 3, 0)}
    assert result.by("phase")["incident"] == Tally(1, 1, 0, 401, 62)
    assert list(result.by("model")) == ["embedder", "llama_8b_sim", "tiny_llm"]


async def test_every_request_arrives_once(triton: StandIn) -> None:
    result = await _drive([_request(n, at_s=n // 40 / 100) for n in range(2000)], triton)
    assert sorted(a.id for a in triton.arrivals) == sorted(f"r-{n}" for n in range(2000))
    assert (result.sent, result.answered, result.failed) == (2000, 2000, 0)
    assert result.failures == {}


async def test_sending_does_not_wait_for_answers(triton: StandIn) -> None:
    all_here = asyncio.Event()

    async def until_all_are_here(_arrival: Arrival, _context: Any) -> None:
        if len(triton.arrivals) == 30:
            all_here.set()
        await all_here.wait()  # a driver that waits for an answer would wait for ever

    triton.before = until_all_are_here
    result = await _drive([_request(n, at_s=n // 10 / 20) for n in range(30)], triton)
    assert result.answered == 30
    assert triton.most_in_flight == 30


async def test_a_burst_comes_on_time_and_together(triton: StandIn) -> None:
    started = time.monotonic()
    result = await _drive(
        [_request(n, at_s=at_s) for n, at_s in enumerate([0.0] * 12 + [0.5] * 12 + [1.0])], triton
    )
    seen = [a.at_s - started for a in triton.arrivals]
    assert seen[12] >= 0.5
    assert seen[24] >= 1.0
    assert {a.id for a in triton.arrivals[:12]} == {f"r-{n}" for n in range(12)}
    assert result.elapsed_s >= 1.0


async def test_a_full_house_delays_what_is_due_but_drops_nothing(triton: StandIn) -> None:
    async def slowly(_arrival: Arrival, _context: Any) -> None:
        await asyncio.sleep(0.05)

    triton.before = slowly
    result = await _drive([_request(n) for n in range(40)], triton, max_in_flight=4)
    assert triton.most_in_flight == 4
    assert (result.sent, result.answered) == (40, 40)
    assert result.max_lag_s >= 0.45  # nine rounds of four came before the last
    assert result.latency_p50_s is not None
    assert 0.05 <= result.latency_p50_s < result.elapsed_s / 2  # the delay is not in the latency
    assert len(result.latencies_s) == len(result.sent_s) == 40
    assert min(result.latencies_s) >= 0.05
    assert 0.45 <= max(result.sent_s) <= result.elapsed_s  # when it was sent, not when due


async def test_errors_are_counted_by_their_reason(triton: StandIn) -> None:
    async def some_fail(arrival: Arrival, context: Any) -> None:
        number = int(arrival.id.removeprefix("r-"))
        if number % 4 == 0:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "prompt too long\nfor 128")
        if number % 4 == 1:
            raise RuntimeError("boom")

    triton.before = some_fail
    result = await _drive([_request(n) for n in range(20)], triton)
    assert (result.sent, result.answered, result.failed) == (20, 10, 10)
    assert result.failures["INVALID_ARGUMENT: prompt too long for 128"] == 5
    assert sum(n for reason, n in result.failures.items() if reason.startswith("UNKNOWN: ")) == 5
    assert result.total == Tally(20, 10, 10, 4010, 620)


async def test_reasons_are_told_apart_up_to_a_limit(triton: StandIn) -> None:
    async def each_its_own(arrival: Arrival, context: Any) -> None:
        word = "".join(chr(ord("g") + int(digit)) for digit in arrival.id[2:])
        await context.abort(grpc.StatusCode.INTERNAL, f"{word} {'x' * 500}")

    triton.before = each_its_own
    result = await _drive([_request(n) for n in range(100)], triton)
    assert sum(result.failures.values()) == 100
    assert len(result.failures) == 21
    assert result.failures["INTERNAL: (other messages)"] == 80
    assert all(len(reason) <= 160 for reason in result.failures)


async def test_reasons_that_differ_only_in_ids_and_numbers_are_one(triton: StandIn) -> None:
    async def with_ids(arrival: Arrival, context: Any) -> None:
        number = int(arrival.id[2:])
        detail = f"[request id: {arrival.id}] {arrival.id} waited {number} ms at 0x{number:x}f0"
        await context.abort(grpc.StatusCode.UNAVAILABLE, detail)

    triton.before = with_ids
    seen: list[Progress] = []
    result = await drive(
        [_request(n) for n in range(100)],
        triton.address,
        max_in_flight=256,
        timeout_s=20,
        on_progress=seen.append,
    )
    ((reason, count),) = result.failures.items()
    assert count == 100
    assert "r-" not in reason
    assert (seen[-1].failed, seen[-1].worst) == (100, reason)
    assert sentence(reason, 1200).startswith("1,200 requests failed: Triton could not be reached")


async def test_a_load_that_is_stopped_says_what_was_answered_and_gives_up_the_rest(
    triton: StandIn,
) -> None:
    stop = asyncio.Event()

    async def the_second_hangs(arrival: Arrival, _context: Any) -> None:
        if arrival.id == "r-1":
            stop.set()
            await asyncio.sleep(600)

    triton.before = the_second_hangs
    plan = [_request(0), _request(1), _request(2, at_s=3600.0)]
    result = await drive(plan, triton.address, max_in_flight=8, timeout_s=600, stop=stop)
    assert result.interrupted
    assert (result.sent, result.answered, result.failed) == (2, 1, 1)
    assert result.failures == {"CANCELLED: the load was stopped": 1}


async def test_an_answer_that_does_not_come_in_time_is_a_failure(triton: StandIn) -> None:
    async def the_first_hangs(arrival: Arrival, _context: Any) -> None:
        if arrival.id == "r-0":
            await asyncio.sleep(60)

    triton.before = the_first_hangs
    result = await _drive([_request(n) for n in range(5)], triton, timeout_s=1.0)
    assert (result.answered, result.failed) == (4, 1)
    (reason,) = result.failures
    assert reason.startswith("DEADLINE_EXCEEDED")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            lambda answer: (answer.outputs.pop(), answer.raw_output_contents.pop()),
            "UNUSABLE_ANSWER: OUTPUT_TOKENS is missing from the answer",
        ),
        (
            lambda answer: answer.ClearField("raw_output_contents"),
            "UNUSABLE_ANSWER: INPUT_TOKENS, OUTPUT_TOKENS is missing from the answer",
        ),
        (
            lambda answer: setattr(answer.outputs[0], "datatype", "INT64"),
            "UNUSABLE_ANSWER: INPUT_TOKENS is INT64[1, 1], not INT32[1,1]",
        ),
        (
            lambda answer: answer.raw_output_contents.__setitem__(1, b""),
            "UNUSABLE_ANSWER: OUTPUT_TOKENS is INT32[1, 1], not INT32[1,1]",
        ),
    ],
)
async def test_an_answer_without_its_counts_is_a_failure_and_not_zero_tokens(
    triton: StandIn, spoil: Callable[[Any], None], reason: str
) -> None:
    triton.after = spoil
    result = await _drive([_request(1)], triton)
    assert result.failures == {reason: 1}
    assert result.total == Tally(1, 0, 1, 0, 0)
    assert (result.latency_p50_s, result.latency_p99_s) == (None, None)


async def test_without_a_server_every_request_fails_and_none_is_lost() -> None:
    result = await drive(
        [_request(n) for n in range(10)], "127.0.0.1:1", max_in_flight=4, timeout_s=5
    )
    assert (result.sent, result.answered, result.failed) == (10, 0, 10)
    assert all(reason.startswith("UNAVAILABLE") for reason in result.failures)


async def test_a_server_that_dies_on_the_way_costs_only_what_it_did_not_answer() -> None:
    stand_in, server = StandIn(), grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(stand_in, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    hundred_here = asyncio.Event()

    async def count(_arrival: Arrival, _context: Any) -> None:
        if len(stand_in.arrivals) == 100:
            hundred_here.set()

    async def die_in_the_middle() -> None:
        await hundred_here.wait()
        await server.stop(0)

    stand_in.before = count
    death = asyncio.create_task(die_in_the_middle())
    result = await drive(
        [_request(n, at_s=n / 200) for n in range(200)],
        f"127.0.0.1:{port}",
        max_in_flight=64,
        timeout_s=5,
    )
    await death
    assert result.sent == 200
    assert result.answered >= 90
    assert result.failed >= 50
    assert result.answered + result.failed == 200


async def test_progress_grows_and_ends_at_the_result(triton: StandIn) -> None:
    seen: list[Progress] = []
    result = await drive(
        [_request(n, at_s=n / 10, phase="calm" if n < 8 else "incident") for n in range(16)],
        triton.address,
        max_in_flight=8,
        timeout_s=10,
        on_progress=seen.append,
    )
    assert len(seen) >= 3  # two in 1.5 seconds, and the end
    assert all(a.sent <= b.sent and a.elapsed_s < b.elapsed_s for a, b in itertools.pairwise(seen))
    assert seen[0].phase == "calm"
    assert seen[0].sent < 16
    last = seen[-1]
    assert (last.sent, last.answered, last.failed) == (result.sent, result.answered, 0)
    assert (last.phase, last.at_s, last.in_flight) == ("incident", 1.5, 0)


async def test_an_error_in_the_plan_or_in_a_callback_is_raised_and_leaves_nothing_running(
    triton: StandIn,
) -> None:
    before = asyncio.all_tasks()

    def broken() -> Iterator[PlannedRequest]:
        yield _request(1)
        raise InvalidTrace("row 2")

    def refuse(_progress: Progress) -> None:
        raise OSError("the terminal is gone")

    with pytest.raises(InvalidTrace, match="row 2"):
        await _drive(broken(), triton)
    with pytest.raises(OSError, match="the terminal is gone"):
        await drive(
            [_request(1), _request(2, at_s=60)],
            triton.address,
            max_in_flight=1,
            timeout_s=5,
            on_progress=refuse,
        )
    await asyncio.sleep(0.1)
    assert not {t for t in asyncio.all_tasks() - before if "Load" in repr(t)}


async def test_a_load_that_is_cancelled_takes_its_calls_back(triton: StandIn) -> None:
    three_here, three_gone = asyncio.Event(), asyncio.Event()
    gone: list[str] = []

    async def for_ever(arrival: Arrival, _context: Any) -> None:
        if len(triton.arrivals) == 3:
            three_here.set()
        try:
            await asyncio.sleep(60)
        finally:
            gone.append(arrival.id)
            if len(gone) == 3:
                three_gone.set()

    triton.before = for_ever
    load = asyncio.create_task(_drive([_request(n) for n in range(5)], triton, max_in_flight=3))
    await three_here.wait()
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    async with asyncio.timeout(5):
        await three_gone.wait()
    assert sorted(gone) == ["r-0", "r-1", "r-2"]
    assert len(triton.arrivals) == 3


@pytest.mark.parametrize(
    ("max_in_flight", "timeout_s", "named"),
    [(0, 1.0, "max_in_flight=0"), (1, 0.0, "timeout_s=0.0"), (1, float("nan"), "timeout_s=nan")],
)
async def test_limits_that_make_no_sense_are_refused(
    triton: StandIn, max_in_flight: int, timeout_s: float, named: str
) -> None:
    with pytest.raises(InvalidPlan, match=named):
        await _drive([], triton, max_in_flight=max_in_flight, timeout_s=timeout_s)


async def test_an_empty_plan_is_over_at_once(triton: StandIn) -> None:
    result = await _drive([], triton)
    assert result.total == Tally()
    assert result.max_lag_s == 0.0

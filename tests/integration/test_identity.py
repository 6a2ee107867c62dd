"""Who pays, through a real Triton: what it does to names, what a gateway's server lets in."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import random
import socket
import struct
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # has no stubs
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from metering.finishing import usage_of_payload
from metering.usage import RequestUsage, UsageBatch
from metering.wal import decode_frames
from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from triton_models.emitter.gateway_token import sign

pytestmark = pytest.mark.stack

KEY = "the gateway's key, of more than 32 characters"
TOKEN = "x-meter-gateway-token"  # noqa: S105  # a header's name
VICTIM = "victim-of-a-spoof"
FIELDS = ("tenant", "team", "project", "user")
Headers = Sequence[tuple[str, str | bytes]]

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 64
input [ {{ name: "IN" data_type: TYPE_STRING dims: [ 1 ] }} ]
output [ {{ name: "OUT" data_type: TYPE_STRING dims: [ 1 ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
"""
METERED = '''
import numpy as np

from triton_models.emitter.metered import MeteredModel, Served


class TritonPythonModel(MeteredModel):
    """Says how many requests it was given at once."""

    operation = "chat"

    def load(self):
        pass

    def serve(self, requests):
        mates = np.array([[str(len(requests)).encode()]], object)
        return [Served({"OUT": mates}, input_tokens=7, output_tokens=2) for _ in requests]
'''
ECHO = '''
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Says which parameters it was given, as it was given them."""

    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("OUT", np.array([[r.parameters().encode()]], object))]
            )
            for r in requests
        ]
'''
PICKY = '''
import json

import numpy as np
import triton_python_backend_utils as pb_utils


def sample(temperature=1):
    return str(temperature).encode()


class TritonPythonModel:
    """Takes its parameters for arguments, as vLLM's backend does."""

    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("OUT", np.array([[sample(**json.loads(r.parameters()))]], object))]
            )
            for r in requests
        ]
'''
FRONT = '''
import triton_python_backend_utils as pb_utils
from triton_models.emitter import backend
from triton_models.emitter.identity import strip


class TritonPythonModel:
    """Calls the picky model with what is left of the parameters."""

    def execute(self, requests):
        responses = []
        for request in requests:
            answer = pb_utils.InferenceRequest(
                model_name="picky",
                requested_output_names=["OUT"],
                inputs=request.inputs(),
                parameters=strip(dict(backend.parameters_of(request))),
            ).exec()
            responses.append(
                pb_utils.InferenceResponse(answer.output_tensors(), error=answer.error())
                if not answer.has_error()
                else pb_utils.InferenceResponse(error=answer.error())
            )
        return responses
'''
ENSEMBLE = """
name: "ensemble"
platform: "ensemble"
max_batch_size: 64
input [ { name: "IN" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "OUT" data_type: TYPE_STRING dims: [ 1 ] } ]
ensemble_scheduling { step [ {
  model_name: "gated" model_version: -1
  input_map { key: "IN" value: "IN" } output_map { key: "OUT" value: "OUT" }
} ] }
"""
GATEWAY = 'parameters { key: "identity" value { string_value: "gateway" } }\n'
REJECT = 'parameters { key: "identity_refusal" value { string_value: "reject" } }\n'
TYPO = GATEWAY.replace("gateway", "gatway")
PROMPT = "dynamic_batching { max_queue_delay_microseconds: 200 }\n"
PATIENT = "dynamic_batching { max_queue_delay_microseconds: 100000 }\n"
INPUT = 'inputs { key: "IN" value { data_type: TYPE_STRING dims: [ 1 ] zero_data: true } }'
WARM_UP = f"""model_warmup [
  {{ name: "one" batch_size: 1 {INPUT} }}, {{ name: "two" batch_size: 2 count: 2 {INPUT} }}
]"""
MODELS = {
    "plain": (METERED, PROMPT),
    "gated": (METERED, PATIENT + GATEWAY + REJECT),
    "busy": (METERED, PROMPT + GATEWAY + REJECT),
    "lenient": (METERED, PROMPT + GATEWAY),
    "warmed": (METERED, GATEWAY + REJECT + WARM_UP),
    "typo": (METERED, TYPO),
    "echo": (ECHO, ""),
    "picky": (PICKY, ""),
    "front": (FRONT, ""),
}


@dataclass(frozen=True)
class Answer:
    """``code`` is HTTP's status or gRPC's; ``out`` is the first output, or the error."""

    code: int | str
    out: str

    @property
    def ok(self) -> bool:
        return self.code in {200, "OK"}


@dataclass
class Server:
    stack: Stack

    def http(
        self,
        model: str,
        parameters: Mapping[str, Any] | str = "{}",
        headers: Headers = (),
        request_id: str = "",
        first: bool = True,
    ) -> Answer:
        """``parameters`` may be raw JSON; they lie before or behind the inputs in the body."""
        text = parameters if isinstance(parameters, str) else json.dumps(parameters)
        parts = [f'"parameters":{text}', f'"inputs":[{json.dumps(HTTP_INPUT)}]']
        body = ",".join([f'"id":{json.dumps(request_id)}', *(parts if first else parts[::-1])])
        return self.post(f"/v2/models/{model}/infer", f"{{{body}}}", headers)

    def post(self, path: str, body: str, headers: Headers = ()) -> Answer:
        """Header by header as given: a client library would put their spelling right."""
        host, port = self.stack.endpoints.triton_http.split(":")
        raw = body.encode("utf-8", "surrogatepass")
        lines = [f"POST {path} HTTP/1.1", "Host: triton", f"Content-Length: {len(raw)}"]
        head = "\r\n".join(lines).encode()
        for name, value in headers:
            head += b"\r\n" + name.encode() + b": "
            head += value.encode() if isinstance(value, str) else value
        with socket.create_connection((host, int(port)), timeout=120) as connection:
            connection.sendall(head + b"\r\n\r\n" + raw)
            response = http.client.HTTPResponse(connection)
            response.begin()
            return answer_of(response.status, response.read())

    def grpc(
        self,
        model: str,
        parameters: Mapping[str, Any] | None = None,
        headers: Headers = (),
        request_id: str = "",
    ) -> Answer:
        with grpc.insecure_channel(self.stack.endpoints.triton_grpc) as channel:
            return grpc_infer(channel, model, parameters or {}, headers, request_id)

    def batches(self, model: str) -> list[UsageBatch]:
        found = []
        for segment in sorted(self.stack.settings.log_dir.rglob("*.wal")):
            frames, _, problem = decode_frames(segment.read_bytes())
            assert problem is None, problem
            found += [usage_of_payload(frame.payload) for frame in frames]
        return [b for b in found if b.model == model]

    def usage(self, model: str, request_id: str) -> RequestUsage:
        """The one entry of a request; none or two are an error."""
        (found,) = [
            r for b in self.batches(model) for r in b.requests if r.request_id == request_id
        ]
        return found


HTTP_INPUT = {"name": "IN", "shape": [1, 1], "datatype": "BYTES", "data": ["x"]}


def answer_of(status: int, body: bytes) -> Answer:
    try:
        found = json.loads(body)
        return Answer(status, found["outputs"][0]["data"][0] if status == 200 else found["error"])
    except (ValueError, KeyError):
        return Answer(status, body.decode(errors="replace"))


def grpc_infer(
    channel: grpc.Channel,
    model: str,
    parameters: Mapping[str, Any],
    headers: Headers,
    request_id: str,
) -> Answer:
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    given = request.inputs.add()
    given.name, given.datatype = "IN", "BYTES"
    given.shape.extend([1, 1])
    request.raw_input_contents.append(struct.pack("<I", 1) + b"x")
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", float: "double_param"}.get(type(value))
        setattr(request.parameters[name], kind or "string_param", value)
    try:
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        answer = call(request, metadata=tuple(headers), timeout=120)
    except grpc.RpcError as exc:
        return Answer(exc.code().name, exc.details())
    return Answer("OK", answer.raw_output_contents[0][4:].decode(errors="replace"))


def token(**claims: Any) -> str:
    given = {"tenant": "acme", "iat": int(time.time()), "jti": uuid.uuid4().hex} | claims
    return sign(KEY.encode(), given)


def an_id() -> str:
    return uuid.uuid4().hex


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    folder = tmp_path_factory.mktemp("identity")
    for name, (source, extra) in MODELS.items():
        version = folder / "models" / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(source)
        (version.parent / "config.pbtxt").write_text(CONFIG.format(name=name) + extra)
    (folder / "models" / "ensemble" / "1").mkdir(parents=True)
    (folder / "models" / "ensemble" / "config.pbtxt").write_text(ENSEMBLE)
    keys = folder / "gateway.keys"
    keys.write_text(KEY + "\n")
    config = StackConfig(
        folder / "stack",
        models=(*(name for name in MODELS if name != "typo"), "ensemble"),
        model_repository=folder / "models",
        preferred_ports=False,
        emitter_env={
            "METER_GATEWAY_KEY_FILE": str(keys),
            "METER_IDENTITY_REFUSAL": "ignore",
            "METER_GATEWAY_MAX_USES": "2",
        },
    )
    async with Stack(config, only=("triton",)) as stack:
        yield Server(stack)


SPELLINGS = ["x-meter-tenant", "X-Meter-Tenant", "X-METER-TENANT", "x-Meter-tenaNT"]


@pytest.mark.parametrize("first", [True, False], ids=["before", "behind"])
@pytest.mark.parametrize("header", SPELLINGS)
async def test_over_http_a_header_lies_behind_all_its_twins_in_the_body_and_counts(
    server: Server, header: str, first: bool
) -> None:
    for twins in ([SPELLINGS[0]], [SPELLINGS[1]], SPELLINGS, SPELLINGS[::-1]):
        spoof = {name: f"{VICTIM}-{i}" for i, name in enumerate(twins)}
        sent: Headers = [(header, "real")]
        seen = await asyncio.to_thread(server.http, "echo", spoof, sent, "", first)
        assert json.loads(seen.out, object_pairs_hook=list) == [*spoof.items(), (header, "real")]
        request_id = an_id()
        await asyncio.to_thread(server.http, "plain", spoof, sent, request_id, first)
        usage = server.usage("plain", request_id)
        assert (usage.tenant, usage.identity_source) == ("real", "header")


async def test_over_grpc_a_header_lies_behind_all_its_twins_in_the_body_and_counts(
    server: Server,
) -> None:
    for twins in ([SPELLINGS[0]], [SPELLINGS[1]], SPELLINGS, SPELLINGS[::-1]):
        spoof = dict.fromkeys(twins, VICTIM)
        for sent in ([("x-meter-tenant", "real")], [("x-meter-tenant", t) for t in ("a", "real")]):
            seen = await asyncio.to_thread(server.grpc, "echo", spoof, sent)
            pairs = json.loads(seen.out, object_pairs_hook=list)
            # The body's own order is not kept; that of body and headers is.
            assert sorted(pairs[: len(spoof)]) == sorted(spoof.items())
            assert pairs[len(spoof) :] == sent
            request_id = an_id()
            await asyncio.to_thread(server.grpc, "plain", spoof, sent, request_id)
            usage = server.usage("plain", request_id)
            assert (usage.tenant, usage.identity_source) == ("real", "header")


async def test_over_http_the_last_of_several_headers_counts(server: Server) -> None:
    sent = [(name, f"t{i}") for i, name in enumerate(SPELLINGS)]
    for order in (sent, sent[::-1]):
        request_id = an_id()
        await asyncio.to_thread(server.http, "plain", {}, order, request_id)
        assert server.usage("plain", request_id).tenant == order[-1][1]


async def test_a_header_that_is_no_text_is_refused_and_costs_nobodys_identity(
    server: Server,
) -> None:
    request_id = an_id()
    sent: Headers = [("x-meter-tenant", "acme"), ("x-meter-user", b"caf\xe9 \xff")]
    assert (await asyncio.to_thread(server.http, "plain", {}, sent, request_id)).ok
    usage = server.usage("plain", request_id)
    assert (usage.tenant, usage.user) == ("acme", "")
    assert "user" in usage.invalid


async def test_a_signed_identity_is_the_events_over_http_grpc_and_through_an_ensemble(
    server: Server,
) -> None:
    claims = {name: f"own-{name}" for name in FIELDS}
    for ask in (server.http, server.grpc):
        for model in ("gated", "lenient", "ensemble"):
            request_id = an_id()
            sent = [(TOKEN, token(**claims, retry_of="r-0"))]
            answer = await asyncio.to_thread(
                ask, model, {"own": 1}, headers=sent, request_id=request_id
            )
            assert answer.out == "1"
            usage = server.usage("gated" if model == "ensemble" else model, request_id)
            assert {name: getattr(usage, name) for name in FIELDS} == claims
            assert (usage.identity_source, usage.retry_of) == ("gateway", "r-0")
            assert (usage.status, usage.input_tokens) == ("ok", 7)


SPOOFS: list[tuple[str, dict[str, Any], Callable[[], list[tuple[str, str]]]]] = [
    ("unproven", {}, list),
    *[("client_set", {name: VICTIM}, list) for name in FIELDS],
    *[("client_set", {name: VICTIM}, lambda: [(TOKEN, token())]) for name in FIELDS],
    *[("client_set", {f"x-meter-{name}": VICTIM}, list) for name in FIELDS],
    *[("client_set", {f"X-Meter-{name}": VICTIM}, lambda: [(TOKEN, token())]) for name in FIELDS],
    ("client_set", {}, lambda: [("x-meter-tenant", VICTIM)]),
    ("client_set", {}, lambda: [(TOKEN, token()), ("x-meter-team", VICTIM)]),
    ("client_set", {TOKEN: "a.b.c"}, lambda: [(TOKEN, token())]),
    ("forged_token", {}, lambda: [(TOKEN, sign(b"x" * 32, {"tenant": VICTIM, "jti": "1"}))]),
    ("malformed_token", {TOKEN: VICTIM}, list),
    ("expired_token", {}, lambda: [(TOKEN, token(tenant=VICTIM, iat=int(time.time()) - 301))]),
]


def _told(value: object) -> str | None:
    """Functions by their number: where they lie is another place in every process."""
    return None if callable(value) else str(value)


@pytest.mark.parametrize(("reason", "parameters", "headers"), SPOOFS, ids=_told)
async def test_a_spoofed_identity_is_refused_and_the_request_is_metered(
    server: Server,
    reason: str,
    parameters: dict[str, Any],
    headers: Callable[[], list[tuple[str, str]]],
) -> None:
    for ask, code in ((server.http, 400), (server.grpc, "INVALID_ARGUMENT")):
        request_id = an_id()
        answer = await asyncio.to_thread(
            ask, "gated", parameters, headers=headers(), request_id=request_id
        )
        assert answer.code == code
        assert f"identity refused ({reason})" in answer.out
        assert VICTIM not in answer.out
        usage = server.usage("gated", request_id)
        assert (usage.status, usage.tenant, usage.identity_source) == (
            "error",
            "unattributed",
            "refused",
        )
        assert (usage.input_tokens, usage.output_tokens, usage.team, usage.user) == (0, 0, "", "")
        assert usage.gpu_ns > 0


@pytest.mark.parametrize(("reason", "parameters", "headers"), SPOOFS, ids=_told)
async def test_where_refusals_are_ignored_a_spoof_is_served_and_never_on_the_victims_account(
    server: Server,
    reason: str,
    parameters: dict[str, Any],
    headers: Callable[[], list[tuple[str, str]]],
) -> None:
    request_id = an_id()
    sent = headers()
    proven = reason == "client_set" and any(name == TOKEN for name, _ in sent)
    answer = await asyncio.to_thread(server.http, "lenient", parameters, sent, request_id)
    assert answer.ok
    usage = server.usage("lenient", request_id)
    assert (usage.status, usage.input_tokens) == ("ok", 7)
    expected = ("acme", "gateway") if proven else ("unattributed", "refused")
    assert (usage.tenant, usage.identity_source) == expected
    assert VICTIM not in usage.model_dump_json()


async def test_a_refused_request_does_not_reach_the_model_and_its_batch_mates_do(
    server: Server,
) -> None:
    ids = [an_id() for _ in range(8)]

    def ask(position: int) -> Answer:
        sent = [(TOKEN, token(tenant=f"t{position}"))] if position % 2 else []
        return server.grpc("gated", {}, sent, ids[position])

    with ThreadPoolExecutor(len(ids)) as pool:
        answers = await asyncio.to_thread(lambda: list(pool.map(ask, range(len(ids)))))
    assert [a.ok for a in answers] == [bool(i % 2) for i in range(len(ids))]
    mixed = 0
    for batch in server.batches("gated"):
        mine = [r for r in batch.requests if r.request_id in ids]
        served = [r for r in mine if r.status == "ok"]
        for request in mine:
            position = ids.index(request.request_id)
            assert request.tenant == (f"t{position}" if position % 2 else "unattributed")
            assert request.gpu_ns > 0
            if request in served:
                assert answers[position].out == str(len(served))
        mixed += 0 < len(served) < len(mine)
        assert sum(r.gpu_ns for r in batch.requests) == batch.gpu_ns
    assert mixed


async def test_a_token_that_was_seen_on_the_way_is_soon_used_up(server: Server) -> None:
    seen = [(TOKEN, token())]
    answers = [await asyncio.to_thread(server.http, "gated", {}, seen) for _ in range(3)]
    assert [a.ok for a in answers] == [True, True, False]
    assert "used_token" in answers[-1].out


async def test_generate_forwards_no_headers_so_it_is_refused_unless_the_body_has_the_token(
    server: Server,
) -> None:
    path, sent = "/v2/models/gated/generate", [(TOKEN, token())]
    refused = await asyncio.to_thread(server.post, path, '{"IN":"x"}', sent)
    assert "identity refused (unproven)" in refused.out
    body = json.dumps({"IN": "x", TOKEN: token()})
    served = await asyncio.to_thread(server.post, path, body)
    assert json.loads(served.out)["OUT"] == "1"


async def test_a_server_without_a_gateway_is_open(server: Server) -> None:
    request_id = an_id()
    await asyncio.to_thread(server.http, "plain", {"tenant": "anyone"}, (), request_id)
    usage = server.usage("plain", request_id)
    assert (usage.tenant, usage.identity_source) == ("anyone", "parameter")


async def test_a_servers_own_warm_up_is_let_in_and_nothing_after_it(server: Server) -> None:
    warm_ups = server.batches("warmed")
    found = [(r.tenant, r.identity_source, r.status) for b in warm_ups for r in b.requests]
    assert found == [("unattributed", "none", "ok")] * 5
    assert len(warm_ups) == 3
    assert not (await asyncio.to_thread(server.http, "warmed")).ok
    assert (await asyncio.to_thread(server.http, "warmed", {}, [(TOKEN, token())])).ok


async def test_a_mode_that_there_is_not_keeps_the_model_from_loading(server: Server) -> None:
    answer = await asyncio.to_thread(server.post, "/v2/repository/models/typo/load", "{}")
    assert not answer.ok
    assert "identity='gatway' is none of ('open', 'gateway')" in answer.out


async def test_a_front_strips_what_a_backend_behind_it_would_choke_on(server: Server) -> None:
    sent = [("x-meter-tenant", "acme")]
    given = {"temperature": 3, "team": "search"}
    choked = await asyncio.to_thread(server.http, "picky", given, sent)
    assert "unexpected keyword argument" in choked.out
    assert (await asyncio.to_thread(server.http, "front", given, sent)).out == "3"


NAMES = [
    *FIELDS,
    *("retry_of", "x-meter-tenant", "X-METER-Team", "x-meter-retry-of", "x-meter-", TOKEN),
    *("own", "", "é", "a.b", "\u202e", "headers", "max_tokens", "x" * 3_000),
]
TEXTS = ["", " ", "a", "\x00", "\x1b[31m\n", "é🦊", "\ufffe", "x" * 257, "x" * 20_000, "a.b.c"]
RAW = [
    *("0", "-1", "1.5", "-0.0", "1e308", "1e400", "NaN", "-Infinity", "true", "false", "null"),
    *("9223372036854775807", "9223372036854775808", "18446744073709551616", "1" * 400, "00"),
    *('"\\ud800"', '"\\u0000"', '"\\ud83e\\udd8a"', '"\ud800"', '"\x01"', "[]", "{}", '{"a":[1]}'),
    *("[" * 300 + "]" * 300, "nul", '"'),
]
NUMBERS = [0, -1, 2**63 - 1, -(2**63), True, False, 1.5, float("nan"), float("inf"), -0.0, 5e-324]
HTTP_FUZZ, GRPC_FUZZ, THREADS = 3_000, 3_000, 8


def fuzz_headers(rng: random.Random) -> list[tuple[str, str]]:
    found = []
    for _ in range(rng.randrange(3)):
        name = rng.choice(["x-meter-tenant", "x-meter-user", TOKEN, "x-other"])
        found.append((name, token() if rng.random() < 0.5 else rng.choice(("", "a", "a.b.c"))))
    return found


def fuzz_over_http(address: str, seed: int, count: int) -> Iterator[tuple[str, Answer]]:
    rng = random.Random(seed)
    connection = http.client.HTTPConnection(address, timeout=120)
    for _ in range(count):
        request_id = an_id()
        entries = []
        for _ in range(rng.randrange(5)):
            value = rng.choice(RAW) if rng.random() < 0.3 else json.dumps(rng.choice(TEXTS))
            entries += [f"{json.dumps(rng.choice(NAMES))}:{value}"] * rng.choice((1, 1, 1, 2))
        body = (
            f'{{"id":"{request_id}","parameters":{{{",".join(entries)}}},'
            f'"inputs":[{json.dumps(HTTP_INPUT)}]}}'
        )
        path = f"/v2/models/{rng.choice(('plain', 'busy', 'lenient'))}/infer"
        raw = body.encode("utf-8", "surrogatepass")
        connection.request("POST", path, raw, dict(fuzz_headers(rng)))
        response = connection.getresponse()
        yield request_id, answer_of(response.status, response.read())
    connection.close()


def fuzz_over_grpc(address: str, seed: int, count: int) -> Iterator[tuple[str, Answer]]:
    rng = random.Random(seed)
    with grpc.insecure_channel(address) as channel:
        for _ in range(count):
            request_id = an_id()
            parameters = {
                rng.choice(NAMES): rng.choice([*TEXTS, *NUMBERS]) for _ in range(rng.randrange(5))
            }
            model = rng.choice(("plain", "busy", "lenient"))
            headers = fuzz_headers(rng)
            yield request_id, grpc_infer(channel, model, parameters, headers, request_id)


async def test_thousands_of_fuzzed_requests_leave_the_server_serving_and_all_answers_logged(
    server: Server,
) -> None:
    endpoints = server.stack.endpoints
    jobs: list[Iterator[tuple[str, Answer]]] = [
        *(
            fuzz_over_http(endpoints.triton_http, seed, HTTP_FUZZ // THREADS)
            for seed in range(THREADS)
        ),
        *(
            fuzz_over_grpc(endpoints.triton_grpc, seed, GRPC_FUZZ // THREADS)
            for seed in range(THREADS)
        ),
    ]
    with ThreadPoolExecutor(len(jobs)) as pool:
        found: list[list[tuple[str, Answer]]] = await asyncio.to_thread(
            lambda: list(pool.map(list, jobs))
        )
    answers = {request_id: answer for part in found for request_id, answer in part}
    assert len(answers) == HTTP_FUZZ + GRPC_FUZZ

    expected = {
        request_id: "ok" if answer.ok else "error"
        for request_id, answer in answers.items()
        if answer.ok or "identity refused" in answer.out
    }
    logged = [
        r
        for model in ("plain", "busy", "lenient")
        for batch in server.batches(model)
        for r in batch.requests
        if r.request_id in answers
    ]
    assert len(logged) == len({r.request_id for r in logged})
    assert {r.request_id: r.status for r in logged} == expected
    assert len(expected) > 3_000
    assert list(expected.values()).count("error") > 200
    assert {r.identity_source for r in logged} == {
        "parameter",
        "header",
        "none",
        "gateway",
        "refused",
    }
    for model in ("plain", "busy", "lenient", "gated"):
        request_id = an_id()
        answer = await asyncio.to_thread(server.http, model, {}, [(TOKEN, token())], request_id)
        assert answer.ok
        assert server.usage(model, request_id).status == "ok"
    assert server.stack.restarts["triton"] == 0


async def test_neither_key_nor_token_is_in_any_log(server: Server) -> None:
    sent = token(tenant="secretive")
    await asyncio.to_thread(server.http, "gated", {}, [(TOKEN, sent)])
    await asyncio.to_thread(server.http, "gated", {"tenant": VICTIM}, [(TOKEN, sent)])
    folder = server.stack.settings.log_dir.parent
    logs = [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]
    texts = []
    for path in logs:
        with contextlib.suppress(OSError):
            texts.append(Path(path).read_bytes())
    whole = b"\n".join(texts)
    assert b"secretive" in whole
    assert b"identity was refused to" in whole
    for secret in (KEY, sent, sent.split(".")[1], sent.split(".")[2], VICTIM):
        assert secret.encode() not in whole

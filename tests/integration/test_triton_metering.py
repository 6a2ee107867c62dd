"""Triton itself, with the models of this repository: what it executed is what the log says."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sysconfig
import threading
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from metering.errors import UnreadableUsage
from metering.finishing import usage_of_payload
from metering.occupancy_board import read_boards
from metering.overlap import Interval, union_ns
from metering.usage import RequestUsage, UsageBatch
from metering.wal import decode_frames, source_of

pytestmark = pytest.mark.stack

ROOT = Path(__file__).resolve().parents[2]
SITE = next((ROOT / ".venv-triton" / "lib").glob("python3.*")) / "site-packages"
SERVER = SITE / "pytriton" / "tritonserver"
MODELS = (
    "tiny_llm",
    "llama_8b_sim",
    "llama_70b_sim",
    "embedder",
    "wishes",
    "pair",
    "tiny_llm_front",
)

Answer: TypeAlias = grpc.InferResult | InferenceServerException

WISHES_CONFIG = """
name: "wishes"
backend: "python"
max_batch_size: 16
input [ { name: "WISH" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "GRANTED" data_type: TYPE_STRING dims: [ 1 ] } ]
dynamic_batching { max_queue_delay_microseconds: 100000 }
instance_group [ { count: 1 kind: KIND_CPU } ]
"""
PAIR_CONFIG = """
name: "pair"
backend: "python"
max_batch_size: 4
input [ { name: "WISH" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "GRANTED" data_type: TYPE_STRING dims: [ 1 ] } ]
dynamic_batching { }
instance_group [ { count: 2 kind: KIND_CPU } ]
parameters { key: "device" value { string_value: "shared by two" } }
"""
WISHES_MODEL = '''
"""Does as it is told: to answer, to refuse, to fail, or to report impossible tokens."""
import time

from triton_models.emitter import backend
from triton_models.emitter.metered import MeteredModel, Served


class TritonPythonModel(MeteredModel):
    operation = "chat"

    def load(self):
        pass

    def serve(self, requests):
        time.sleep(0.06)
        wishes = [backend.tensor(r, "WISH") for r in requests]
        if any(w[0, 0] == b"raise" for w in wishes):
            raise ValueError("as wished")
        if any(w[0, 0] == b"break" for w in wishes):
            self._payload = self._broken_once
        return [self._grant(w) for w in wishes]

    def _broken_once(self, *args):
        del self._payload
        raise RuntimeError("metering is broken, as wished")

    def _grant(self, wish):
        if wish[0, 0] == b"refuse":
            return Served(error="refused, as wished")
        cached = 99 if wish[0, 0] == b"lie" else 1
        tokens = object() if wish[0, 0] == b"babble" else 3 * len(wish)
        return Served({"GRANTED": wish}, input_tokens=tokens, cached_input_tokens=cached)
'''


@dataclass
class Triton:
    """A running server and the log that its models write."""

    grpc_port: int
    http_port: int
    log_dir: Path
    output: Path
    cold_ns: dict[str, int] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def client(self) -> grpc.InferenceServerClient:
        return grpc.InferenceServerClient(f"127.0.0.1:{self.grpc_port}")

    def batches(self, model: str) -> list[UsageBatch]:
        """Those that can be read; the others' problems are in ``unreadable``."""
        found = []
        self.unreadable = []
        for segment in sorted(self.log_dir.rglob("*.wal")):
            frames, _, problem = decode_frames(segment.read_bytes())
            assert problem is None, problem
            for frame in frames:
                try:
                    batch = usage_of_payload(frame.payload)
                except UnreadableUsage as exc:
                    self.unreadable.append(exc.detail)
                    continue
                assert batch.sequence == frame.sequence
                assert batch.source == source_of(self.log_dir, segment)
                found.append(batch)
        return [b for b in found if b.model == model]

    def usage(self, model: str, request_id: str) -> RequestUsage:
        """The one entry of a request; none or two are an error."""
        (found,) = [
            r for b in self.batches(model) for r in b.requests if r.request_id == request_id
        ]
        return found

    def statistics(self, model: str) -> dict[int, tuple[int, int]]:
        """Batch size to (executions, compute_infer ns), from Triton's own books."""
        with contextlib.closing(self.client()) as client:
            stats = client.get_inference_statistics(model, as_json=True)["model_stats"][0]
        return {
            int(b["batch_size"]): (
                int(b["compute_infer"]["count"]),
                int(b["compute_infer"]["ns"]),
            )
            for b in stats.get("batch_stats", [])
        }


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    folder = tmp_path_factory.mktemp("triton")
    for name, config in (("wishes", WISHES_CONFIG), ("pair", PAIR_CONFIG)):
        model = folder / "models" / name
        (model / "1").mkdir(parents=True)
        (model / "config.pbtxt").write_text(config)
        (model / "1" / "model.py").write_text(WISHES_MODEL)
    with started(folder) as server:
        # An instance's first execution pays for what the backend sets up outside of execute.
        infer(server, "llama_8b_sim", tokens(10, 0, 20))
        infer(server, "wishes", wish("ok"))
        for model in ("llama_8b_sim", "wishes"):
            server.cold_ns[model] = server.statistics(model)[1][1]
        yield server


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Triton]:
    server = Triton(free_port(), free_port(), folder / "log", folder / "triton.log")
    # The stub of this environment's Python lies beside those of others.
    backends = folder / "backends" / "python"
    backends.mkdir(parents=True)
    version = SITE.parent.name.removeprefix("python")
    for file in (SERVER / "backends" / "python").iterdir():
        (backends / file.name).symlink_to(file)
    stub = SERVER / "python_backend_stubs" / version / "triton_python_backend_stub"
    (backends / stub.name).symlink_to(stub)
    env = os.environ | {
        "LD_LIBRARY_PATH": f"{SITE / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}",
        "PATH": f"{ROOT / '.venv-triton' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{SITE}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "METER_LOG_DIR": str(server.log_dir),
        "METER_REGION": "eu-central",
        "METER_DEPLOYMENT": "blue",
        "METER_SIM_SPEEDUP": "10",
    }
    command = [
        str(SERVER / "bin" / "tritonserver"),
        f"--model-repository={ROOT / 'triton_models'}",
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}",
        f"--backend-config=python,shm-region-prefix-name=test_{uuid.uuid4().hex[:8]}_",
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in MODELS),
        f"--grpc-port={server.grpc_port}",
        f"--http-port={server.http_port}",
        "--grpc-address=127.0.0.1",
        "--http-address=127.0.0.1",
        "--allow-metrics=false",
        "--grpc-header-forward-pattern=(?i)^x-meter-.*$",
        "--http-header-forward-pattern=(?i)^x-meter-.*$",
        "--exit-timeout-secs=5",
    ]
    with server.output.open("wb") as output:
        process = subprocess.Popen(
            command, env=env, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until_ready(server, process)
        yield server
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(120)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)


def wait_until_ready(server: Triton, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + 240
    while time.monotonic() < give_up and process.poll() is None:
        with (
            contextlib.suppress(InferenceServerException),
            contextlib.closing(server.client()) as client,
        ):
            if client.is_server_ready():
                return
        time.sleep(0.2)
    pytest.fail(f"Triton did not start:\n{server.output.read_text(errors='replace')[-4000:]}")


def tensor(name: str, values: list[Any], dtype: str) -> grpc.InferInput:
    kind = np.object_ if dtype == "BYTES" else np.int32
    found = grpc.InferInput(name, [len(values), 1], dtype)
    found.set_data_from_numpy(np.array([[v] for v in values], dtype=kind))
    return found


def text(prompts: list[str], max_tokens: int) -> list[grpc.InferInput]:
    return [
        tensor("TEXT", [p.encode() for p in prompts], "BYTES"),
        tensor("MAX_TOKENS", [max_tokens] * len(prompts), "INT32"),
    ]


def tokens(given: int, cached: int, wanted: int) -> list[grpc.InferInput]:
    names = ("INPUT_TOKENS", "CACHED_INPUT_TOKENS", "OUTPUT_TOKENS")
    return [tensor(n, [v], "INT32") for n, v in zip(names, (given, cached, wanted), strict=True)]


def wish(what: str, rows: int = 1) -> list[grpc.InferInput]:
    return [tensor("WISH", [what.encode()] * rows, "BYTES")]


def infer(
    server: Triton, model: str, inputs: list[grpc.InferInput], **options: Any
) -> tuple[str, grpc.InferResult]:
    request_id = options.pop("request_id", uuid.uuid4().hex)
    with contextlib.closing(server.client()) as client:
        return request_id, client.infer(model, inputs, request_id=request_id, **options)


def at_once(server: Triton, model: str, asked: dict[str, list[grpc.InferInput]]) -> list[Answer]:
    """Every request, by its id, from a thread of its own, all let go together."""
    gate = threading.Barrier(len(asked))

    def run(request_id: str) -> Answer:
        gate.wait()
        try:
            return infer(server, model, asked[request_id], request_id=request_id)[1]
        except InferenceServerException as exc:
            return exc

    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(run, asked))


def values(result: grpc.InferResult, name: str) -> list[Any]:
    return list(result.as_numpy(name).reshape(-1).tolist())


def agrees_with_triton(server: Triton, model: str) -> None:
    """Executions, rows and time of the log against Triton's statistics."""
    logged = server.batches(model)
    books = server.statistics(model)
    assert Counter(b.batch_size for b in logged) == {n: count for n, (count, _) in books.items()}
    for size, (_, compute_ns) in books.items():
        warm = [b for b in logged if b.batch_size == size and b.sequence > 0]
        warm_ns = compute_ns - (server.cold_ns[model] if size == 1 else 0)
        assert all(b.gpu_ns > 0 for b in warm)
        assert sum(b.gpu_ns for b in warm) <= warm_ns
    first = logged[0]
    assert first.batch_size == 1
    assert first.gpu_ns <= server.cold_ns[model]
    for batch in logged:
        assert sum(r.gpu_ns for r in batch.requests) == batch.gpu_ns
        assert sum(r.rows for r in batch.requests) == batch.batch_size
    assert sorted(b.sequence for b in logged) == list(range(len(logged)))


def test_every_answer_of_a_burst_is_in_the_log_once_with_its_tokens(triton: Triton) -> None:
    asked = {f"burst-{uuid.uuid4().hex}": (20 + i, i, 90 + i) for i in range(40)}
    answers = at_once(triton, "llama_8b_sim", {i: tokens(*t) for i, t in asked.items()})
    assert not [a for a in answers if isinstance(a, Exception)]
    logged = [
        (b, r) for b in triton.batches("llama_8b_sim") for r in b.requests if r.request_id in asked
    ]
    assert sorted(r.request_id for _, r in logged) == sorted(asked)
    assert max(b.batch_size for b, _ in logged) > 1
    for batch, r in logged:
        assert (r.input_tokens, r.cached_input_tokens, r.output_tokens) == asked[r.request_id]
        assert (r.status, r.operation, r.tenant) == ("ok", "chat", "unattributed")
        assert (batch.accelerator, batch.speedup) == ("simulated H100", 10)
        assert (batch.region, batch.deployment) == ("eu-west", "blue")
    agrees_with_triton(triton, "llama_8b_sim")


def test_real_prompts_are_decoded_together_and_counted_by_their_tokenizer(triton: Triton) -> None:
    prompts = ["The king said to", "Alice", "Once upon a time there was a rabbit who", "x y z"]
    alone = [infer(triton, "tiny_llm", text([p], 24))[1] for p in prompts]
    ids = [uuid.uuid4().hex for _ in prompts]
    asked = {i: text([p], 24) for i, p in zip(ids, prompts, strict=True)}
    together = at_once(triton, "tiny_llm", asked)
    for before, request_id, result in zip(alone, ids, together, strict=True):
        assert not isinstance(result, Exception)
        usage = triton.usage("tiny_llm", request_id)
        assert values(result, "TEXT") == values(before, "TEXT")
        assert values(result, "OUTPUT_TOKENS") == [usage.output_tokens] == [24]
        assert values(result, "INPUT_TOKENS") == [usage.input_tokens]
        assert usage.operation == "text_completion"
    sizes = [b.batch_size for b in triton.batches("tiny_llm")]
    assert max(sizes) > 1
    assert triton.batches("tiny_llm")[0].region == "eu-central"


def test_the_example_of_a_front_answers_as_its_model_does_and_meters_nothing_twice(
    triton: Triton,
) -> None:
    asked = text(["Alice was beginning to", "The Queen"], 12)
    _, direct = infer(triton, "tiny_llm", asked)
    request_id, through = infer(
        triton, "tiny_llm_front", asked, parameters={"tenant": "acme", "temperature": 1}
    )
    assert values(through, "TEXT") == values(direct, "TEXT")
    assert through.as_numpy("METER_RECEIPT") is None
    usage = triton.usage("tiny_llm", request_id)
    assert (usage.status, usage.tenant, usage.rows) == ("ok", "acme", 2)
    assert usage.input_tokens == sum(values(through, "INPUT_TOKENS"))
    assert usage.queue_ns is not None
    with pytest.raises(InferenceServerException, match="context of 128 tokens"):
        infer(triton, "tiny_llm_front", text(["word " * 200], 10), request_id="too-long-too")
    assert triton.usage("tiny_llm", "too-long-too").status == "error"
    assert not triton.batches("tiny_llm_front")


def test_a_request_of_several_rows_is_one_entry_with_all_its_rows(triton: Triton) -> None:
    request_id, result = infer(triton, "tiny_llm", text(["Alice was", "The Queen of", "a"], 30))
    usage = triton.usage("tiny_llm", request_id)
    assert usage.rows == 3
    assert usage.input_tokens == sum(values(result, "INPUT_TOKENS"))
    assert usage.output_tokens == 90


def test_a_prompt_beyond_the_context_is_refused_with_the_limit(triton: Triton) -> None:
    with pytest.raises(InferenceServerException, match="context of 128 tokens"):
        infer(triton, "tiny_llm", text(["word " * 200], 10), request_id="too-long")
    usage = triton.usage("tiny_llm", "too-long")
    assert (usage.status, usage.input_tokens, usage.output_tokens) == ("error", 0, 0)


def test_embeddings_know_near_from_far_and_are_metered(triton: Triton) -> None:
    texts = ["A man is eating food.", "Someone has a meal.", "Interest rates rose again."]
    request_id, result = infer(
        triton, "embedder", [tensor("TEXT", [t.encode() for t in texts], "BYTES")]
    )
    vectors = result.as_numpy("EMBEDDING")
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > far + 0.3
    usage = triton.usage("embedder", request_id)
    assert usage.operation == "embeddings"
    assert usage.input_tokens == sum(values(result, "INPUT_TOKENS"))
    assert usage.output_gpu_ns == 0


def test_a_larger_llama_takes_longer_and_stands_elsewhere(triton: Triton) -> None:
    infer(triton, "llama_8b_sim", tokens(64, 0, 12))
    infer(triton, "llama_70b_sim", tokens(64, 0, 12))
    small, large = (triton.batches(m)[-1] for m in ("llama_8b_sim", "llama_70b_sim"))
    assert (small.region, large.region) == ("eu-west", "us-east")
    assert phases_ns(large) > 8 * phases_ns(small)
    # 100 ms of prefill and 11 steps of 74.6 ms, ten times faster.
    assert 91_000_000 <= phases_ns(large) <= large.gpu_ns


def phases_ns(batch: UsageBatch) -> int:
    """The time that the model reports, whatever the machine adds to it."""
    assert batch.prefill_ns is not None
    assert batch.decode_ns is not None
    return batch.prefill_ns + batch.decode_ns


def test_what_no_llama_could_be_asked_is_refused_by_name(triton: Triton) -> None:
    with pytest.raises(InferenceServerException, match="CACHED_INPUT_TOKENS=9"):
        infer(triton, "llama_8b_sim", tokens(5, 9, 2), request_id="impossible")
    assert triton.usage("llama_8b_sim", "impossible").status == "error"


def test_identity_comes_from_parameters_and_from_headers(triton: Triton) -> None:
    mine = {"tenant": "acme", "team": "search", "project": "p", "user": "u", "retry_of": "r-1"}
    by_body, _ = infer(triton, "llama_8b_sim", tokens(5, 0, 80), parameters=mine)
    by_header, _ = infer(
        triton,
        "llama_8b_sim",
        tokens(5, 0, 80),
        headers={f"x-meter-{k.replace('_', '-')}": v for k, v in mine.items()},
    )
    for request_id, source in ((by_body, "parameter"), (by_header, "header")):
        usage = triton.usage("llama_8b_sim", request_id)
        found = (usage.tenant, usage.team, usage.project, usage.user, usage.retry_of)
        assert found == tuple(mine.values())
        assert usage.identity_source == source


def test_a_header_over_http_counts_however_it_is_spelled(triton: Triton) -> None:
    body = {
        "id": "over-http",
        "inputs": [{"name": "WISH", "shape": [1, 1], "datatype": "BYTES", "data": ["ok"]}],
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{triton.http_port}/v2/models/wishes/infer",
        json.dumps(body).encode(),
        {"X-METER-Tenant": "globex", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        assert json.load(response)["outputs"][0]["data"] == ["ok"]
    usage = triton.usage("wishes", "over-http")
    assert (usage.tenant, usage.identity_source) == ("globex", "header")


@pytest.mark.parametrize(
    "garbage",
    [
        {"tenant": 7},
        {"tenant": True},
        {"tenant": "x" * 5_000, "team": "\x00\x1b[31m\n"},
        {"tenant": "", "retry_of": " "},
        {"tenant": "多租户 🦊", "x-meter-tenant": "spoof"},
        {"nobody": "knows", "priority_": -1},
    ],
    ids=str,
)
def test_garbage_in_the_parameters_loses_no_request(
    triton: Triton, garbage: dict[str, Any]
) -> None:
    request_id, result = infer(triton, "wishes", wish("ok"), parameters=garbage)
    assert values(result, "GRANTED") == [b"ok"]
    usage = triton.usage("wishes", request_id)
    assert usage.tenant.isprintable()
    assert usage.input_tokens == 3


def test_a_request_without_an_id_gets_one_of_its_own(triton: Triton) -> None:
    for _ in range(2):
        infer(triton, "wishes", wish("ok"), request_id="", parameters={"user": "nameless"})
    entries = [r for b in triton.batches("wishes") for r in b.requests if r.user == "nameless"]
    assert len({r.request_id for r in entries if r.request_id}) == len(entries) == 2


def test_a_bad_request_does_not_hurt_its_batch_mates(triton: Triton) -> None:
    wishes = {uuid.uuid4().hex: "refuse" if i == 3 else "ok" for i in range(8)}
    answers = at_once(triton, "wishes", {i: wish(w) for i, w in wishes.items()})
    assert [isinstance(a, Exception) for a in answers] == [w == "refuse" for w in wishes.values()]
    assert "refused, as wished" in str(answers[3])
    (batch,) = [
        b
        for b in triton.batches("wishes")
        if any(wishes.get(r.request_id) == "refuse" for r in b.requests)
    ]
    assert batch.batch_size > 1
    assert [r.status for r in batch.requests] == [
        "error" if wishes[r.request_id] == "refuse" else "ok" for r in batch.requests
    ]
    assert all(r.gpu_ns > 0 for r in batch.requests)


def test_a_failing_model_fails_its_batch_and_its_time_is_logged(triton: Triton) -> None:
    ids = [uuid.uuid4().hex for _ in range(3)]
    wishes = ["raise", "ok", "ok"]
    asked = {i: wish(w, rows=2) for i, w in zip(ids, wishes, strict=True)}
    answers = at_once(triton, "wishes", asked)
    assert "as wished" in str(answers[0])
    assert triton.usage("wishes", ids[0]).status == "failed"
    (batch,) = [b for b in triton.batches("wishes") if ids[0] in [r.request_id for r in b.requests]]
    assert {r.status for r in batch.requests} == {"failed"}
    assert batch.batch_size == 2 * len(batch.requests)
    assert batch.gpu_ns >= 60_000_000
    infer(triton, "wishes", wish("ok"))


def test_the_log_of_all_this_agrees_with_triton(triton: Triton) -> None:
    agrees_with_triton(triton, "wishes")


def test_a_batch_that_can_not_be_metered_is_answered_and_leaves_a_gap(triton: Triton) -> None:
    before = {b.sequence for b in triton.batches("wishes")}
    _, result = infer(triton, "wishes", wish("break"))
    assert values(result, "GRANTED") == [b"break"]
    infer(triton, "wishes", wish("ok"))
    after = {b.sequence for b in triton.batches("wishes")}
    assert after - before == {max(before) + 2}
    assert "batches are not metered" in triton.output.read_text(errors="replace")


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("babble", "input_tokens"),
        ("lie", "cached_input_tokens=99 exceeds input_tokens=3"),
    ],
)
def test_a_request_with_impossible_tokens_is_answered_and_marked_and_has_its_gpu_time(
    triton: Triton, what: str, problem: str
) -> None:
    request_id, result = infer(triton, "wishes", wish(what))
    assert values(result, "GRANTED") == [what.encode()]
    usage = triton.usage("wishes", request_id)
    assert problem in usage.invalid
    assert (usage.status, usage.input_tokens, usage.output_tokens) == ("ok", 0, 0)
    assert usage.gpu_ns > 0
    assert triton.unreadable == []


def test_two_instances_on_one_device_share_its_time_to_the_nanosecond(triton: Triton) -> None:
    """Where the machine is so busy that the board's lock could not be had for a batch, that one has
    no share and says so, and its part of the device's time is lost; then once more."""
    known, busy_ns = set[tuple[str, int]](), 0
    for _ in range(5):
        at_once(triton, "pair", {uuid.uuid4().hex: wish("ok") for _ in range(24)})
        (device,) = [d for d in read_boards(triton.log_dir) if d.device == "shared by two"]
        batches = triton.batches("pair")
        shares = [b.gpu_ns for b in batches if b.overlap_ns is not None]
        assert device.given_ns == sum(shares)
        assert device.given_ns + device.lost_ns == device.busy_ns
        assert device.wall_ns == device.busy_ns + device.idle_ns
        new = [b for b in batches if (b.source, b.sequence) not in known]
        intervals = [
            Interval(b.start_monotonic_ns, b.start_monotonic_ns + b.wall_ns, (b.source, b.sequence))
            for b in new
        ]
        if all(b.overlap_ns is not None for b in new):
            assert len({b.instance for b in new}) == 2
            assert sum(b.overlap_ns or 0 for b in new) > 0
            assert sum(b.gpu_ns for b in new) == union_ns(intervals) == device.busy_ns - busy_ns
            return
        known, busy_ns = {(b.source, b.sequence) for b in batches}, device.busy_ns
    pytest.fail("each time there was a batch for which the lock was not to be had")


def test_a_model_that_knows_its_phases_tells_them(triton: Triton) -> None:
    infer(triton, "llama_8b_sim", tokens(64, 0, 12))
    batch = triton.batches("llama_8b_sim")[-1]
    assert batch.prefill_ns is not None
    assert batch.decode_ns is not None
    assert 0 < batch.gpu_ns - batch.prefill_ns - batch.decode_ns < 10_000_000
    assert [r.decode_gpu_ns for r in batch.requests] == [batch.decode_ns]


def test_a_log_that_was_deleted_is_begun_again(triton: Triton) -> None:
    infer(triton, "wishes", wish("ok"))
    for segment in triton.log_dir.rglob("wishes*/*.wal"):
        segment.unlink()
    request_id, _ = infer(triton, "wishes", wish("ok"))
    assert triton.usage("wishes", request_id).status == "ok"

"""Whatever becomes of a request, it has one line; and the lines are Triton's own books."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from metering.finishing import usage_of_payload
from metering.usage import UNEXECUTED, RequestUsage, UsageBatch
from metering.wal import decode_frames
from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from triton_models.emitter.gateway_token import sign

pytestmark = pytest.mark.stack

ROOT = Path(__file__).resolve().parents[2]
SITE = next((ROOT / ".venv-triton" / "lib").glob("python3.*")) / "site-packages"
SERVER = SITE / "pytriton" / "tritonserver"
TENANTS = ("acme", "globex", "initech")
FRONTS = ("wide", "narrow", "gated", "doomed")
Answer: TypeAlias = "str | InferenceServerException"

TARGET_CONFIG = """
name: "target"
backend: "python"
max_batch_size: 4
input [ { name: "WISH" data_type: TYPE_STRING dims: [ 1 ] } ]
output [
  { name: "GRANTED" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "METER_RECEIPT" data_type: TYPE_STRING dims: [ 1 ] }
]
dynamic_batching {
  max_queue_delay_microseconds: 30000
  default_queue_policy {
    default_timeout_microseconds: 20000000 allow_timeout_override: true max_queue_size: 6
  }
}
response_cache { enable: true }
instance_group [ { count: 1 kind: KIND_CPU } ]
parameters { key: "behind_front" value { string_value: "true" } }
"""
TARGET_MODEL = '''
"""Does as it is told: ``slow:SECONDS:…``, ``raise``, ``refuse``, ``mimic`` or anything else."""
import time

from triton_models.emitter import backend
from triton_models.emitter.metered import MeteredModel, Served


class TritonPythonModel(MeteredModel):
    operation = "chat"

    def load(self):
        pass

    def serve(self, requests):
        wishes = [backend.tensor(r, "WISH") for r in requests]
        told = [w[0, 0].decode() for w in wishes]
        time.sleep(max(float(t.split(":")[1]) if t.startswith("slow") else 0.005 for t in told))
        if any(t.startswith("raise") for t in told):
            raise ValueError("as wished")
        return [self._grant(t, w) for t, w in zip(told, wishes)]

    def _grant(self, told, wish):
        if told.startswith("refuse"):
            return Served(error="refused, as wished", input_tokens=2)
        if told.startswith("mimic"):
            return Served(error="Request timeout expired")
        rows = len(wish)
        return Served({"GRANTED": wish}, input_tokens=10 * rows, cached_input_tokens=3,
                      output_tokens=7 * rows, reasoning_tokens=1)
'''
FRONT_CONFIG = """
name: "%s"
backend: "python"
max_batch_size: 4
input [ { name: "WISH" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "GRANTED" data_type: TYPE_STRING dims: [ 1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
parameters { key: "target" value { string_value: "target" } }
parameters { key: "target_gives_receipts" value { string_value: "true" } }
%s
"""
FRONT_MODEL = """
from triton_models.emitter.front import MeteredFront


class TritonPythonModel(MeteredFront):
    operation = "chat"
"""
FRONT_PARAMETERS = {
    "narrow": 'parameters { key: "max_in_flight" value { string_value: "1" } }\n'
    'parameters { key: "max_queue_size" value { string_value: "4" } }',
    "gated": 'parameters { key: "identity" value { string_value: "gateway" } }',
}


@dataclass
class Sent:
    """What a client knows of its request: whom it named, and what it was told."""

    tenant: str
    model: str
    answer: Answer = ""
    retry_of: str | None = None


@dataclass
class Triton:
    grpc_port: int
    metrics_port: int
    log_dir: Path
    output: Path
    sent: dict[str, Sent] = field(default_factory=dict)
    gateway_key: str = field(default_factory=lambda: secrets.token_hex(32))
    as_wanted: dict[str, list[str]] = field(default_factory=dict)
    """Outcome to the ids of the requests that were to come to it."""

    def client(self) -> grpc.InferenceServerClient:
        return grpc.InferenceServerClient(f"127.0.0.1:{self.grpc_port}")

    def batches(self) -> list[UsageBatch]:
        found = []
        for segment in sorted(self.log_dir.rglob("*.wal")):
            frames, _, problem = decode_frames(segment.read_bytes())
            assert problem is None, problem
            found += [usage_of_payload(frame.payload) for frame in frames]
        return found

    def lines(self) -> dict[str, list[tuple[UsageBatch, RequestUsage]]]:
        """By request id."""
        found: dict[str, list[tuple[UsageBatch, RequestUsage]]] = {}
        for batch in self.batches():
            for request in batch.requests:
                found.setdefault(request.request_id, []).append((batch, request))
        return found

    def line(self, request_id: str) -> tuple[UsageBatch, RequestUsage]:
        (found,) = self.lines().get(request_id, [])
        return found

    def books(self) -> Counter[tuple[str, str]]:
        """Triton's counters of requests, by model: success, failures by reason, cache hits."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=120) as response:
            text = response.read().decode()
        found: Counter[tuple[str, str]] = Counter()
        pattern = r'^nv_(?:inference_request|cache_num)_(\w+)\{model="(\w+)",(.*)\} (\d+)$'
        for name, model, labels, count in re.findall(pattern, text, re.MULTILINE):
            reason = re.search(r'reason="(\w+)"', labels)
            found[model, reason[1] if reason else name] += int(count)
        return found

    def infer(self, model: str, wishes: list[tuple[str, dict[str, Any]]]) -> list[_Asked]:
        """All on their way when this returns; each of a tenant of its own in turn."""
        asked = []
        for wish, options in wishes:
            request_id = options.pop("request_id", None) or uuid.uuid4().hex
            parameters = {"tenant": options.pop("tenant", None) or next(_tenants)}
            sent = self.sent[request_id] = Sent(parameters["tenant"], model)
            if retry_of := options.pop("retry_of", None):
                parameters["retry_of"] = sent.retry_of = retry_of
            options["parameters"] = parameters
            asked.append(_Asked(self, request_id, sent, wish, options))
        return asked


_tenants = itertools.cycle(TENANTS)


class _Asked:
    """A request on its way."""

    def __init__(
        self, triton: Triton, request_id: str, sent: Sent, wish: str, options: dict[str, Any]
    ) -> None:
        self.id = request_id
        self._sent = sent
        self._done = threading.Event()
        self._client = triton.client()
        tensor = wish_tensor(wish, options.pop("rows", 1))
        self._call = self._client.async_infer(
            sent.model, [tensor], self._answered, request_id=request_id, **options
        )

    def _answered(self, result: grpc.InferResult, error: InferenceServerException | None) -> None:
        self._sent.answer = (
            error if error is not None else result.as_numpy("GRANTED")[0, 0].decode()
        )
        self._done.set()

    def cancel(self) -> None:
        self._call.cancel()

    def wait(self) -> str:
        """Returns its id."""
        assert self._done.wait(180), self._sent
        self._client.close()
        return self.id


def wish_tensor(wish: str, rows: int = 1) -> grpc.InferInput:
    tensor = grpc.InferInput("WISH", [rows, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[wish.encode()]] * rows, np.object_))
    return tensor


def wait_all(asked: list[_Asked]) -> list[str]:
    return [a.wait() for a in asked]


def free_ports(count: int) -> int:
    """The first of so many in a row: metrics are expected one above gRPC."""
    while True:
        with contextlib.ExitStack() as held:
            first = held.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                for n in range(1, count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port + n))
                return port


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    folder = tmp_path_factory.mktemp("outcomes")
    write_model(folder / "models", "target", TARGET_CONFIG, TARGET_MODEL)
    for name in FRONTS:
        config = FRONT_CONFIG % (name, FRONT_PARAMETERS.get(name, ""))
        write_model(folder / "models", name, config, FRONT_MODEL)
    with started(folder) as server:
        provoke(server)
        yield server


def write_model(repository: Path, name: str, config: str, code: str) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(config)
    (repository / name / "1" / "model.py").write_text(code)


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Triton]:
    grpc_port = free_ports(3) + 1
    log_dir = folder / "usage-log"  # where a stack in this folder looks for it
    server = Triton(grpc_port, grpc_port + 1, log_dir, folder / "triton.log")
    backends = folder / "backends" / "python"
    backends.mkdir(parents=True)
    version = SITE.parent.name.removeprefix("python")
    stub = SERVER / "python_backend_stubs" / version / "triton_python_backend_stub"
    for part in (*(SERVER / "backends" / "python").iterdir(), stub):
        if part.is_file() and not (backends / part.name).exists():
            (backends / part.name).symlink_to(part)
    key_file = folder / "gateway-key"
    key_file.write_text(server.gateway_key)
    env = os.environ | {
        "LD_LIBRARY_PATH": f"{SITE / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}",
        "PATH": f"{ROOT / '.venv-triton' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{SITE}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "METER_LOG_DIR": str(server.log_dir),
        "METER_GATEWAY_KEY_FILE": str(key_file),
    }
    command = [
        str(SERVER / "bin" / "tritonserver"),
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}",
        f"--backend-config=python,shm-region-prefix-name=test_{uuid.uuid4().hex[:8]}_",
        f"--cache-directory={SERVER / 'caches'}",
        "--cache-config=local,size=1048576",
        f"--grpc-port={server.grpc_port}",
        f"--metrics-port={server.metrics_port}",
        "--grpc-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
        "--allow-http=false",
        "--allow-gpu-metrics=false",
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


def provoke(triton: Triton) -> None:
    """Several of every outcome, each of another tenant."""

    def ask(model: str, *wishes: str, **options: Any) -> list[_Asked]:
        return triton.infer(model, [(w, dict(options)) for w in wishes])

    def busy(model: str = "wide", seconds: float = 0.8) -> list[_Asked]:
        """The target is at work for a while when this returns."""
        asked = ask(model, f"slow:{seconds}:{uuid.uuid4().hex}")
        time.sleep(0.25)
        return asked

    want = triton.as_wanted
    texts = [f"text {i}" for i in range(6)]
    want["ok"] = wait_all(ask("wide", *texts[:3]) + ask("wide", *texts[3:], rows=2))
    want["cache_hit"] = wait_all(ask("wide", *texts[:3]) + ask("wide", *texts[3:], rows=2))
    want["cache_hit"] += wait_all(ask("narrow", *texts[:1]))

    first = busy()
    crowd = wait_all(ask("wide", *(f"crowd {i}" for i in range(11))))
    told = {i: str(triton.sent[i].answer) for i in crowd}
    want["rejected"] = [i for i in crowd if "Exceeds maximum queue size" in told[i]]
    want["ok"] += wait_all(first) + [i for i in crowd if i not in want["rejected"]]

    first = busy("narrow")
    crowd = wait_all(ask("narrow", *(f"narrow crowd {i}" for i in range(9))))
    told = {i: str(triton.sent[i].answer) for i in crowd}
    refused = [i for i in crowd if "Exceeds maximum queue size" in told[i]]
    assert refused
    want["rejected"] += refused
    want["ok"] += wait_all(first) + [i for i in crowd if i not in refused]
    want["rejected"] += wait_all(ask("gated", "nobody", "said who"))

    first = busy()
    want["timed_out"] = wait_all(ask("wide", "late 1", "late 2", "late 3", timeout=100_000))
    want["ok"] += wait_all(first)

    first = busy("narrow")
    gone = ask("narrow", "gone 1", "gone 2", "gone 3")
    time.sleep(0.1)
    for asked in gone:
        asked.cancel()
    want["cancelled_in_queue"] = wait_all(gone)
    want["ok"] += wait_all(first)

    want["cancelled"] = []
    for _ in range(2):
        (running,) = busy("wide", 0.7)
        running.cancel()
        want["cancelled"].append(running.wait())
        wait_for_lines(triton, want["cancelled"])

    first = busy()
    queued = ask("wide", "queued and gone 1", "queued and gone 2")
    time.sleep(0.1)
    for asked in queued:
        asked.cancel()
    want["cancelled"] += wait_all(queued)
    want["ok"] += wait_all(first)
    wait_for_lines(triton, want["cancelled"])

    want["failed"] = wait_all(ask("wide", "raise 1", "raise 2", "raise 3"))
    want["error"] = wait_all(ask("wide", "refuse 1", "refuse 2", "mimic"))
    for before in want["failed"]:
        again = {"tenant": triton.sent[before].tenant, "retry_of": before}
        want["ok"] += wait_all(ask("wide", f"again {before}", **again))

    # Without a front: what is executed has a line, the rest is in Triton's books alone.
    first = busy("target")
    want["ok"] += [a.id for a in first]
    alone = ask("target", "alone 1", "alone 2")
    late = ask("target", "alone and late", timeout=100_000)
    time.sleep(0.1)
    for asked in alone:
        asked.cancel()
    want["no line"] = wait_all(alone + late)
    wait_all(first)
    want["no line"] += wait_all(ask("target", texts[0]))
    wait_for_lines(triton, [i for what, ids in want.items() if what != "no line" for i in ids])


def wait_for_lines(triton: Triton, ids: list[str]) -> None:
    """A cancelled request's line comes when its batch ends, whenever the client has left."""
    wait_for(lambda: set(ids) <= triton.lines().keys())


def wait_for(fact: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 120
    while not fact() and time.monotonic() < give_up:
        time.sleep(0.05)


OUTCOMES = (
    "ok", "cache_hit", "rejected", "timed_out", "cancelled_in_queue", "cancelled", "failed", "error"
)  # fmt: skip


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_request_has_one_line_with_its_outcome_and_its_tenant(
    triton: Triton, outcome: str
) -> None:
    lines = triton.lines()
    ids = triton.as_wanted[outcome]
    assert len(ids) >= 3
    for request_id in ids:
        ((batch, request),) = lines[request_id]
        sent = triton.sent[request_id]
        assert (request.status, batch.model) == (outcome, "target"), sent
        assert request.tenant == ("unattributed" if sent.model == "gated" else sent.tenant)
        assert batch.executed == (outcome not in UNEXECUTED)
        assert (request.gpu_ns > 0) == batch.executed
        assert request.retry_of == sent.retry_of
    assert {triton.sent[i].tenant for i in ids} == set(TENANTS) or outcome == "cancelled"


def test_the_log_is_tritons_books_to_the_request(triton: Triton) -> None:
    books, logged = triton.books(), Counter[str]()
    for batch in triton.batches():
        assert batch.model == "target"
        logged.update(r.status for r in batch.requests)
    hits_without_front, cancelled_without_front, late_without_front = 1, 2, 1
    assert books["target", "success"] == (
        logged["ok"]
        + logged["error"]
        + logged["cancelled"]
        + logged["cache_hit"]
        + hits_without_front
    )
    assert books["target", "hits_per_model"] == logged["cache_hit"] + hits_without_front
    assert books["target", "BACKEND"] == logged["failed"]
    assert books["target", "REJECTED"] == logged["timed_out"] + late_without_front
    assert books["target", "CANCELED"] == cancelled_without_front
    through_fronts = [i for i, s in triton.sent.items() if s.model in FRONTS]
    assert sum(books[front, "success"] for front in FRONTS) == len(through_fronts)
    assert sum(logged.values()) == len(triton.sent) - len(triton.as_wanted["no line"])


def test_executions_and_their_rows_are_tritons_books(triton: Triton) -> None:
    with contextlib.closing(triton.client()) as client:
        stats = client.get_inference_statistics("target", as_json=True)["model_stats"][0]
    executed = [b for b in triton.batches() if b.executed]
    assert int(stats["execution_count"]) == len(executed)
    answered = [b for b in executed if "failed" not in {r.status for r in b.requests}]
    assert int(stats["inference_count"]) == sum(b.batch_size for b in answered)


def test_what_no_front_saw_has_no_line(triton: Triton) -> None:
    lines = triton.lines()
    assert len(triton.as_wanted["no line"]) == 4
    assert not [i for i in triton.as_wanted["no line"] if i in lines]


def test_a_cache_hit_has_the_tokens_that_its_answer_once_took(triton: Triton) -> None:
    for request_id in triton.as_wanted["cache_hit"]:
        _, request = triton.line(request_id)
        assert request.input_tokens == 10 * request.rows
        assert request.output_tokens == 7 * request.rows
        assert (request.cached_input_tokens, request.reasoning_tokens) == (3, 1)
        assert request.gpu_ns == 0
    assert {triton.line(i)[1].rows for i in triton.as_wanted["cache_hit"]} == {1, 2}


def test_a_client_is_told_what_it_would_be_told_without_a_front(triton: Triton) -> None:
    def told(outcome: str) -> set[str]:
        answers = [triton.sent[i].answer for i in triton.as_wanted[outcome]]
        assert all(isinstance(a, Exception) for a in answers), answers
        return {re.sub(r"\[request id: \w+\] ", "", str(a)) for a in answers}

    refused = told("rejected")
    assert "[StatusCode.UNAVAILABLE] Exceeds maximum queue size" in refused
    assert [t for t in refused if "identity refused (client_set)" in t]
    assert len(refused) == 2
    assert told("timed_out") == {"[StatusCode.UNAVAILABLE] Request timeout expired"}
    assert any("as wished" in t for t in told("failed"))
    assert told("error") == {
        "[StatusCode.INTERNAL] refused, as wished",
        "[StatusCode.INTERNAL] target says: Request timeout expired",
    }


def test_an_answer_through_a_front_has_no_receipt_in_it(triton: Triton) -> None:
    with contextlib.closing(triton.client()) as client:
        answers = [
            client.infer(model, [wish_tensor("for two")], request_id=f"for two, by {model}")
            for model in ("target", "wide")
        ]
    names = [[o.name for o in answer.get_response().outputs] for answer in answers]
    assert [sorted(n) for n in names] == [["GRANTED", "METER_RECEIPT"], ["GRANTED"]]
    _, request = triton.line("for two, by wide")
    assert (request.status, request.tenant) == ("cache_hit", "unattributed")
    assert request.input_tokens == 10


def test_a_cache_hit_is_billed_to_whom_the_gateway_has_signed_for(triton: Triton) -> None:
    claims = {"tenant": "signed", "iat": int(time.time()), "jti": uuid.uuid4().hex}
    token = sign(triton.gateway_key.encode(), claims)
    with contextlib.closing(triton.client()) as client:
        client.infer("wide", [wish_tensor("for the signed")])
        client.infer(
            "gated",
            [wish_tensor("for the signed")],
            request_id="of the signed",
            parameters={"x-meter-gateway-token": token},
        )
    _, request = triton.line("of the signed")
    assert (request.status, request.tenant) == ("cache_hit", "signed")
    assert request.identity_source == "gateway"


def test_the_time_in_the_queue_is_from_the_fronts_arrival_to_the_work(triton: Triton) -> None:
    waited = [triton.line(i)[1].queue_ns for i in triton.as_wanted["timed_out"]]
    assert all(w is not None and 100_000_000 <= w < 5_000_000_000 for w in waited)
    fronted = [i for i in triton.as_wanted["ok"] if triton.sent[i].model in FRONTS]
    queued = [triton.line(i)[1].queue_ns for i in fronted]
    assert all(q is not None for q in queued)
    assert max(q for q in queued if q is not None) > 300_000_000
    (direct,) = [i for i in triton.as_wanted["ok"] if triton.sent[i].model == "target"]
    assert triton.line(direct)[1].queue_ns is None


def test_what_was_cancelled_while_it_waited_is_not_worked_on(triton: Triton) -> None:
    running, waiting = triton.as_wanted["cancelled"][:2], triton.as_wanted["cancelled"][2:]
    for request_id in running:
        batch, request = triton.line(request_id)
        assert request.output_tokens == 7
        assert batch.gpu_ns >= 700_000_000
    for request_id in waiting:
        batch, request = triton.line(request_id)
        assert (request.input_tokens, request.output_tokens) == (0, 0)
        assert batch.gpu_ns < 400_000_000


async def test_meter_reconcile_covers_every_request_of_tritons_books(triton: Triton) -> None:
    """The whole way: shipped, priced, stored, and compared by the command."""
    folder = triton.log_dir.parent
    config = StackConfig(folder, triton=f"127.0.0.1:{triton.grpc_port}", preferred_ports=False)
    async with Stack(config, print):
        found: dict[str, Any] = {}
        give_up = time.monotonic() + 240
        while time.monotonic() < give_up and not found.get("target", {}).get("agrees"):
            await asyncio.sleep(1)
            found = await asyncio.to_thread(meter_reconcile, folder)
    target = found["target"]
    assert target["agrees"], target
    assert target["coverage_percent"] == "100.00"
    logged = Counter(r.status for b in triton.batches() for r in b.requests)
    outcomes = target["outcomes"]
    answered = logged["ok"] + logged["error"] + logged["cancelled"]
    assert {name: (o["server"], o["metered"], o["inferred"]) for name, o in outcomes.items()} == {
        "answered": (answered, answered, 0),
        "cache_hits": (logged["cache_hit"] + 1, logged["cache_hit"], 1),
        "failed": (logged["failed"], logged["failed"], 0),
        "timed_out": (logged["timed_out"] + 1, logged["timed_out"], 1),
        "cancelled_in_queue": (2, 0, 2),
        "other": (0, 0, 0),
    }
    assert target["uncounted"] == logged["rejected"] + logged["cancelled_in_queue"]


def meter_reconcile(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "streams.cli", "reconcile", "--json", "--dir"]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    print(done.stderr[-2000:])
    return dict(json.loads(done.stdout)) if done.returncode in (0, 1) and done.stdout else {}


def test_a_killed_front_answers_nothing_more_and_counts_nothing_twice(triton: Triton) -> None:
    """Triton does not answer for a dead stub what it had begun: only the client's deadline does."""
    (asked,) = triton.infer("doomed", [("slow:0.8:orphan", {"client_timeout": 3})])
    time.sleep(0.4)
    os.kill(front_pid(triton, "doomed"), signal.SIGKILL)
    (after,) = triton.infer("doomed", [("after it", {"client_timeout": 3})])
    assert isinstance(triton.sent[after.wait()].answer, InferenceServerException)
    request_id = asked.wait()
    assert "Deadline Exceeded" in str(triton.sent[request_id].answer)
    batch, request = triton.line(request_id)
    assert (request.status, batch.executed, batch.instance) == ("ok", True, "target_0_0")
    (other,) = triton.infer("wide", [("the others go on", {})])
    assert triton.line(other.wait())[1].status == "ok"


def front_pid(triton: Triton, front: str) -> int:
    """From the name of its folder in the log."""
    (folder,) = triton.log_dir.glob(f"*/*/*/{front}_0_0")
    return int(folder.parent.name.split("-")[0])

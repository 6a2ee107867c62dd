"""What a front costs: the time that one more hop adds, and how many requests go through one.

``python -m benchmarks.bench_front``: a table, and ``build/results/front.json``. The same metered
model, which answers at once, is asked directly and through its front; the two take turns within
every round, so that what else the machine does meets them alike. With ``QUICK=1`` fewer rounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles

import numpy as np
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from streams.stack.places import REPO
from streams.stack.ports import HOST, PortBook
from streams.stack.triton import TritonPorts, find_triton, shm_prefix, triton_recipe

RESULTS = Path("build/results/front.json")
MODELS = ("quick", "quick_front")
ONE_BY_ONE = 150
AT_ONCE = 32
BURST = 640
CONFIG = """
name: "%s"
backend: "python"
max_batch_size: 32
input [ { name: "X" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "Y" data_type: TYPE_INT32 dims: [ 1 ] }%s ]
instance_group [ { count: 1 kind: KIND_CPU } ]
%s
"""
CONFIGS = {
    "quick": CONFIG
    % (
        "quick",
        ', { name: "METER_RECEIPT" data_type: TYPE_STRING dims: [ 1 ] }',
        'dynamic_batching { }\nparameters { key: "behind_front" value { string_value: "true" } }',
    ),
    "quick_front": CONFIG
    % (
        "quick_front",
        "",
        'parameters { key: "target" value { string_value: "quick" } }\n'
        'parameters { key: "target_gives_receipts" value { string_value: "true" } }',
    ),
}
CODE = {
    "quick": """
from triton_models.emitter import backend
from triton_models.emitter.metered import MeteredModel, Served


class TritonPythonModel(MeteredModel):
    operation = "chat"

    def load(self):
        pass

    def serve(self, requests):
        return [Served({"Y": backend.tensor(r, "X")}, input_tokens=1) for r in requests]
""",
    "quick_front": """
from triton_models.emitter.front import MeteredFront


class TritonPythonModel(MeteredFront):
    operation = "chat"
""",
}


@contextlib.contextmanager
def server(folder: Path) -> Iterator[grpc.InferenceServerClient]:
    for name in MODELS:
        (folder / "repository" / name / "1").mkdir(parents=True)
        (folder / "repository" / name / "config.pbtxt").write_text(CONFIGS[name])
        (folder / "repository" / name / "1" / "model.py").write_text(CODE[name])
    ports = PortBook()
    own = TritonPorts(http=ports.take(), grpc=ports.take(), metrics=ports.take())
    recipe = triton_recipe(
        install=find_triton(REPO / ".venv-triton"),
        folder=folder,
        models={name: folder / "repository" / name for name in MODELS},
        load=MODELS,
        ports=own,
        shm=shm_prefix(),
        extra_env={"METER_LOG_DIR": str(folder / "log")},
    )
    if recipe.prepare is not None:
        asyncio.run(_done(recipe.prepare()))
    ports.release()
    with (folder / "triton.log").open("wb") as output:
        process = subprocess.Popen(
            recipe.argv, env=dict(recipe.env), cwd=recipe.cwd, stdout=output, stderr=output
        )
    client = grpc.InferenceServerClient(f"{HOST}:{own.grpc}")
    try:
        wait_until_ready(client, process, folder / "triton.log")
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(30)
        if recipe.clean is not None:
            recipe.clean()


def wait_until_ready(
    client: grpc.InferenceServerClient, process: subprocess.Popen[bytes], log: Path
) -> None:
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up and process.poll() is None:
        with contextlib.suppress(InferenceServerException):
            if client.is_server_ready():
                return
        time.sleep(0.2)
    raise SystemExit(f"Triton did not start:\n{log.read_text(errors='replace')[-4000:]}")


def question(number: int) -> list[grpc.InferInput]:
    asked = grpc.InferInput("X", [1, 1], "INT32")
    asked.set_data_from_numpy(np.array([[number]], np.int32))
    return [asked]


def one_by_one_us(client: grpc.InferenceServerClient, model: str) -> list[float]:
    taken = []
    for number in range(ONE_BY_ONE):
        begun = time.perf_counter_ns()
        client.infer(model, question(number), parameters={"tenant": "acme"})
        taken.append((time.perf_counter_ns() - begun) / 1e3)
    return taken


def per_second(client: grpc.InferenceServerClient, model: str) -> float:
    """Answers a second while ``AT_ONCE`` requests are always on their way."""
    free, failed = threading.Semaphore(AT_ONCE), []

    def answered(*, result: object, error: InferenceServerException | None) -> None:
        if result is None:
            failed.append(error)
        free.release()

    begun = time.perf_counter()
    for number in range(BURST):
        free.acquire()
        client.async_infer(model, question(number), answered, parameters={"tenant": "acme"})
    for _ in range(AT_ONCE):
        free.acquire()
    if failed:
        raise SystemExit(f"{model}: {len(failed)} of {BURST} failed: {failed[0]}")
    return BURST / (time.perf_counter() - begun)


def figures_of(client: grpc.InferenceServerClient, rounds: int) -> dict[str, dict[str, object]]:
    middles: dict[str, list[float]] = {model: [] for model in MODELS}
    tails: dict[str, list[float]] = {model: [] for model in MODELS}
    rates: dict[str, list[float]] = {model: [] for model in MODELS}
    for model in MODELS:
        one_by_one_us(client, model)
    for turn in range(rounds):
        for model in MODELS if turn % 2 else MODELS[::-1]:
            taken = one_by_one_us(client, model)
            middles[model].append(median(taken))
            tails[model].append(quantiles(taken, n=100)[98])
            rates[model].append(per_second(client, model))
        print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
    direct, front = MODELS
    return {
        "direct_p50_us": figure(middles[direct], "us"),
        "front_p50_us": figure(middles[front], "us"),
        "added_p50_us": figure(differences(middles), "us", target=2_000),
        "direct_p99_us": figure(tails[direct], "us"),
        "front_p99_us": figure(tails[front], "us"),
        "added_p99_us": figure(differences(tails), "us"),
        "direct_per_second": figure(rates[direct], "1/s"),
        "front_per_second": figure(rates[front], "1/s"),
    }


def differences(values: Mapping[str, Sequence[float]]) -> list[float]:
    """Within each round."""
    direct, front = MODELS
    return [f - d for d, f in zip(values[direct], values[front], strict=True)]


def figure(values: Sequence[float], unit: str, target: float | None = None) -> dict[str, object]:
    """The median over the rounds, and the interquartile range; ``target`` is the most allowed."""
    low, _, high = quantiles(values, n=4)
    value = median(values)
    return {
        "value": round(value, 1),
        "unit": unit,
        "target": target,
        "holds": None if target is None else value <= target,
        "spread": round(high - low, 1),
    }


async def _done(what: Awaitable[None]) -> None:
    await what


def main() -> None:
    with tempfile.TemporaryDirectory() as name, server(Path(name)) as client:
        figures = figures_of(client, 4 if os.environ.get("QUICK") else 20)
    for title, found in figures.items():
        print(f"{title:<20}{found['value']:>10} {found['unit']:<4}± {found['spread']}")
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    document = {
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "commit": told.stdout.strip() or "unknown",
        "figures": figures,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    failed = [title for title, found in figures.items() if found["holds"] is False]
    if failed:
        raise SystemExit(f"not within its target: {', '.join(failed)}")


if __name__ == "__main__":
    main()

"""The main job, whole: the command that a newcomer types, with real processes, and a kill."""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest

METER = [sys.executable, "-m", "streams.cli"]
LIMIT_S = 1_200
"""On a machine that has other work to do; how long it takes is measured by ``make bench-demo``."""

pytestmark = [pytest.mark.stack, pytest.mark.timeout(LIMIT_S + 20)]


class Demo:
    """A demo that runs; what was asked of its ClickHouse meanwhile; and its report."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder.with_suffix(".log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*METER, "demo", "--json", "--kill", "worker", "--dir", str(folder)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def endpoints(self) -> dict[str, Any]:
        """As soon as the stack is up."""
        path = self.folder / "endpoints.json"
        deadline = time.monotonic() + LIMIT_S
        while not path.exists():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)
        return dict(json.loads(path.read_text()))

    def report(self) -> dict[str, Any]:
        stdout, _ = self.process.communicate(timeout=LIMIT_S)
        assert stdout, self.log.read_text()
        return dict(json.loads(stdout))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    running = Demo(tmp_path_factory.mktemp("demo") / "stack")
    yield running
    if running.process.poll() is None:
        running.process.terminate()
        running.process.wait(120)


@pytest.fixture(scope="module")
def asked_meanwhile(demo: Demo) -> list[str]:
    """The same question from two clients at once, while traffic flows."""
    url = demo.endpoints()["clickhouse"]
    question = "SELECT count(), sleep(1) FROM system.one"

    def by_curl() -> str:
        asked = [
            "curl", "--silent", "--show-error", "--fail", "--data-binary", question, url,
        ]  # fmt: skip
        return subprocess.run(asked, check=True, capture_output=True, text=True).stdout

    def by_clickhouse_connect() -> str:
        parts = urllib.parse.urlsplit(url)
        client = clickhouse_connect.get_client(host=parts.hostname, port=parts.port)
        try:
            rows = client.query(question).result_rows
        finally:
            client.close()
        return "\t".join(map(str, rows[0])) + "\n"

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(ask) for ask in (by_curl, by_clickhouse_connect)]
        return [answer.result(300) for answer in answers]


@pytest.fixture(scope="module")
def report(demo: Demo, asked_meanwhile: list[str]) -> dict[str, Any]:
    return demo.report()


def test_two_clients_at_once_get_answers_while_the_demo_runs(asked_meanwhile: list[str]) -> None:
    assert asked_meanwhile == ["1\t0\n", "1\t0\n"]


def test_nothing_is_wrong_by_the_reports_own_account(report: dict[str, Any], demo: Demo) -> None:
    # On a busy machine Triton waits for its models' processes, and counts that as the models' time.
    # How much of it is metered is measured by `make bench-demo`.
    slowed = tuple(
        f"{model}: "
        for model, sides in report["reconciliation"].items()
        if sides["discrepancies"] == ["gpu_ns"]
    )
    assert [problem for problem in report["problems"] if not problem.startswith(slowed)] == []
    assert demo.process.returncode == (1 if report["problems"] else 0)


def test_every_answered_request_is_metered_priced_and_stored_once(report: dict[str, Any]) -> None:
    requests = report["requests"]
    assert requests["answered"] > 4_000
    assert set(requests.values()) == {requests["answered"]}


def test_gpu_time_is_conserved_in_real_batches(report: dict[str, Any]) -> None:
    assert report["conservation"] == {"mismatches": 0}
    assert report["batches"]["mean_size"] > 4


@pytest.mark.parametrize("model", ["tiny_llm", "llama_8b_sim", "llama_70b_sim", "embedder"])
def test_metered_usage_equals_tritons_own_counters(report: dict[str, Any], model: str) -> None:
    sides = report["reconciliation"][model]
    assert sides["executions"]["server"] == sides["executions"]["metered"] > 0
    assert sides["rows"]["server"] == sides["rows"]["metered"] > 0
    server_ns, metered_ns = sides["gpu_ns"]["server"], sides["gpu_ns"]["metered"]
    assert 0 < metered_ns <= server_ns


def test_the_incident_is_found_explained_and_delivered_and_the_calm_is_not(
    report: dict[str, Any],
) -> None:
    anomalies = report["anomalies"]
    assert anomalies["calm"] == 0
    assert anomalies["incident"] >= 1
    assert anomalies["delivered"] == anomalies["incident"]
    cause = report["top_cause"]
    assert (cause["driver"], cause["slice"]["tenant"]) == ("input_length", "acme")


def test_unit_costs_are_there_for_every_tenant_and_model(report: dict[str, Any]) -> None:
    cohorts = {(cost["tenant"], cost["model"]) for cost in report["unit_costs"]}
    assert len(cohorts) == 8
    for cost in report["unit_costs"]:
        assert float(cost["cost_usd"]) > 0
        assert float(cost["usd_per_million_input_tokens"]) > 0
        assert (cost["usd_per_million_output_tokens"] is None) == (cost["model"] == "embedder")


def test_nothing_is_left_behind(report: dict[str, Any], demo: Demo) -> None:
    assert not (demo.folder / "endpoints.json").exists()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            assert os.fsencode(demo.folder) not in command

"""``meter up`` in one terminal, the other commands in another, and Ctrl-C at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

METER = [sys.executable, "-m", "streams.cli"]

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


class Up:
    """A stack that runs in the foreground of another process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.errors = (folder.parent / "up.log").open("w+")
        self.process = subprocess.Popen(
            [*METER, "up", "--json", "--dir", str(folder)],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (folder.parent / "up.log").read_text()
        self.endpoints: dict[str, Any] = json.loads(line)

    def meter(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*METER, *arguments, "--dir", str(self.folder)]
        # Without the stack nothing answers: not another one on the usual ports either.
        environment = os.environ | {"METER_CLICKHOUSE": "http://127.0.0.1:9"}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=900, check=False, env=environment
        )


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("up") / "stack")
    trace = running.folder.parent / "trace.jsonl"
    trace.write_text(
        "".join(
            json.dumps(
                {"at_s": n // 8 * 0.5, "input_tokens": 50, "output_tokens": 100, "tenant": t}
            )
            + "\n"
            for n, t in enumerate(["acme", "globex"] * 20)
        )
    )
    replayed = running.meter("replay", str(trace), "--format", "jsonl", "--json")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert "starting one" not in replayed.stderr, "the running stack is used"
    yield running
    running.process.kill()
    running.process.wait()
    running.errors.close()


def test_sql_answers_in_the_format_that_was_asked_for(up: Up) -> None:
    query = "SELECT tenant, count() AS n FROM cost_requests GROUP BY tenant ORDER BY tenant"
    table = up.meter("sql", query)
    assert table.returncode == 0
    assert "acme" in table.stdout
    rows = json.loads(up.meter("sql", query, "--json").stdout)["data"]
    assert [(row["tenant"], int(row["n"])) for row in rows] == [("acme", 20), ("globex", 20)]
    assert up.meter("sql", query, "--format", "CSV").stdout == '"acme",20\n"globex",20\n'


def test_a_wrong_question_is_answered_by_clickhouses_own_error(up: Up) -> None:
    wrong = up.meter("sql", "SELECT nope FROM cost_requests")
    assert wrong.returncode == 1
    assert "nope" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_top_shows_unit_costs(up: Up) -> None:
    shown = up.meter("top", "--once", "--last", "600")
    assert shown.returncode == 0
    assert "acme" in shown.stdout
    (first, *_) = json.loads(up.meter("top", "--json", "--last", "600").stdout)
    assert float(first["usd_per_million_output_tokens"]) > 0


def test_reconcile_finds_both_sides_equal(up: Up) -> None:
    asked = up.meter("reconcile", "--json")
    sides = json.loads(asked.stdout)["llama_8b_sim"]
    assert sides["rows"] == {"server": 40, "metered": 40}
    assert sides["executions"]["server"] == sides["executions"]["metered"]
    assert (sides["coverage_percent"], sides["attributed"]) == ("100.00", 40)
    assert asked.returncode == 0, asked.stdout


def test_every_service_tells_prometheus_how_it_is(up: Up) -> None:
    for name, metric in (
        ("worker", "meter_requests_total"),
        ("shipper", "meter_shipped_batches_total"),
        ("detector", "meter_detector_windows_total"),
        ("sentinel", "meter_capacity_heartbeats_total"),
        ("reconciler", "meter_reconciliation_verdicts_total"),
    ):
        url = up.endpoints["metrics"][name]
        body = subprocess.run(
            ["curl", "-sSf", url], capture_output=True, text=True, check=True
        ).stdout
        assert metric in body


def test_a_second_stack_in_the_same_folder_is_refused(up: Up) -> None:
    second = up.meter("up")
    assert second.returncode == 1
    assert str(up.folder) in second.stderr
    assert "Traceback" not in second.stderr


def test_ctrl_c_stops_everything(up: Up) -> None:
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(300) == 0
    assert not (up.folder / "endpoints.json").exists()
    for pid in up.endpoints["pids"].values():
        assert not Path(f"/proc/{pid}").exists()
    gone = up.meter("sql", "SELECT 1")
    assert gone.returncode == 1
    assert "meter up" in gone.stderr

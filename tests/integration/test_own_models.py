"""A model of one's own by the README: ``meter up --models``, in a folder with an odd name, with a
price book and a webhook from the environment; its usage is metered, priced and there in SQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

METER = [sys.executable, "-m", "streams.cli"]
REPO = Path(__file__).parents[2]
MODELS = REPO / "docs" / "examples" / "models"
BOOK = """
[[gpu_hour]]
id = "a-core"
accelerator = "cpu"
region = "eu-west"
usd_per_gpu_hour = "3.6"
effective_from = 2020-01-01T00:00:00Z
"""

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


class Up:
    def __init__(self, room: Path) -> None:
        self.room = room
        self.folder = room / 'it\'s "ü" a=b, 100% $HOME'
        (room / "book.toml").write_text(BOOK)
        own = {"METER_PRICE_BOOK": "book.toml", "METER_MODELS": str(MODELS), "METER_WEBHOK": "x"}
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("METER_")}
        self.errors = (room / "up.log").open("w+")
        self.process = subprocess.Popen(
            [*METER, "up", "--json", "--dir", str(self.folder)],
            stdout=subprocess.PIPE, stderr=self.errors, text=True, cwd=room,
            env=self.environment | own,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (room / "up.log").read_text()
        self.endpoints: dict[str, Any] = json.loads(line)

    def meter(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*METER, *arguments, "--dir", str(self.folder)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=200, check=False, cwd=self.room,
            env=self.environment,
        )  # fmt: skip


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("own"))
    yield running
    running.process.kill()
    running.process.wait()
    running.errors.close()


def test_a_models_usage_is_metered_priced_and_there_in_sql(up: Up) -> None:
    rows = [
        {"at_s": n // 5 * 0.2, "input_tokens": 20, "output_tokens": 10, "tenant": tenant}
        for n, tenant in enumerate(["acme", "globex"] * 10)
    ]
    (up.room / "trace.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    replayed = up.meter("replay", "trace.jsonl", "--format", "jsonl", "--model", "my_llm", "--json")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    report = json.loads(replayed.stdout)
    assert report["stored"] == {"requests": 20, "input_tokens": 400, "output_tokens": 200}
    assert report["unpriced_requests"] == 0

    query = (
        "SELECT count() AS n, sum(cost_usd) AS usd, sum(gpu_ns) AS ns, any(pricing_status) AS s "
        "FROM cost_requests WHERE model = 'my_llm'"
    )
    (row,) = json.loads(up.meter("sql", query, "--json").stdout)["data"]
    assert (int(row["n"]), row["s"]) == (20, "priced")
    assert Decimal(str(row["usd"])) == Decimal(row["ns"]) * Decimal("1e-12")  # 3.6 USD an hour
    assert Decimal(report["cost_usd"]) == Decimal(str(row["usd"]))
    top = json.loads(up.meter("top", "--json", "--last", "600").stdout)
    assert {(c["tenant"], c["model"]) for c in top} == {("acme", "my_llm"), ("globex", "my_llm")}


def test_a_replay_to_a_model_that_is_not_there_sends_nothing_and_names_those_that_are(
    up: Up,
) -> None:
    row = {"at_s": 0, "input_tokens": 20, "output_tokens": 10}
    (up.room / "one.jsonl").write_text(json.dumps(row))
    refused = up.meter("replay", "one.jsonl", "--format", "jsonl", "--model", "nope")
    assert refused.returncode == 1
    assert "no model 'nope'" in refused.stderr
    assert "my_llm" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_ctrl_c_shows_what_a_replay_has_done_and_what_it_cost(up: Up) -> None:
    rows = [{"at_s": at_s, "input_tokens": 20, "output_tokens": 10} for at_s in (0, 0, 3600)]
    (up.room / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [*METER, "replay", "long.jsonl", "--format", "jsonl", "--model", "my_llm"]
    replay = subprocess.Popen(
        [*command, "--dir", str(up.folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=up.room, env=up.environment,
    )  # fmt: skip
    assert replay.stderr is not None
    for line in replay.stderr:
        if "2 of 3 answered" in line:
            break
    replay.send_signal(signal.SIGINT)
    out, err = replay.communicate(timeout=120)
    assert replay.returncode == 130, out + err
    assert "stopped after 2 of 3 requests" in out
    assert "USD in all" in out


def test_an_empty_answer_has_the_names_of_its_columns_and_says_so(up: Up) -> None:
    asked = up.meter("sql", "SELECT tenant, cost_usd FROM cost_requests WHERE tenant = 'nobody'")
    assert (asked.returncode, asked.stdout) == (0, "tenant\tcost_usd\n")
    assert "0 rows" in asked.stderr


def test_a_typing_error_in_sql_is_shown_with_its_position_and_without_the_grammar(up: Up) -> None:
    wrong = up.meter("sql", "SELEC tenant FROM cost_requests")
    assert wrong.returncode == 1
    assert "Syntax error: failed at position 1" in wrong.stderr
    assert len(wrong.stderr) < 400


def test_the_price_book_of_the_environment_holds_and_a_misspelt_variable_is_reported(
    up: Up,
) -> None:
    assert up.endpoints["price_book"] == str(up.room / "book.toml")
    assert not (up.folder / "prices.toml").exists()
    assert "METER_WEBHOK is set" in (up.room / "up.log").read_text()
    assert "Is METER_WEBHOOKS meant?" in (up.room / "up.log").read_text()


def test_nothing_is_left_of_the_links_that_the_odd_name_needed(up: Up) -> None:
    command = Path(f"/proc/{up.endpoints['pids']['triton']}/cmdline").read_text().split("\0")
    (repository,) = [w.partition("=")[2] for w in command if w.startswith("--model-repository=")]
    assert Path(repository, "my_llm").resolve() == MODELS / "my_llm"
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(60) == 0, (up.room / "up.log").read_text()
    assert not Path(repository).exists()
    assert (MODELS / "my_llm" / "config.pbtxt").is_file()

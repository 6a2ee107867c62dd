"""``meter calibrate`` on a running stack: the simulation's own coefficients are found again, a
constant workload is refused, and a server that starts afterwards divides by what was fitted."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from triton_models.simulation import LLAMA_8B

METER = [sys.executable, "-m", "streams.cli"]
PS_PER_US = 10**6

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


class Running:
    """A stack whose models read the calibration file from where ``meter calibrate`` writes it."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder

    async def meter(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*METER, *arguments, "--dir", str(self.folder)]
        return await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=900, check=False
        )

    async def replay(self, rows: list[dict[str, Any]]) -> None:
        trace = self.folder.parent / "trace.jsonl"
        rows = sorted(rows, key=lambda row: row["at_s"])
        trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
        done = await self.meter("replay", str(trace), "--format", "jsonl", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "starting one" not in done.stderr

    async def calibrate(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        done = await self.meter("calibrate", "--json", *arguments)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    async def rules_of(self, model: str) -> list[str]:
        """Every rule by which a batch of the model was divided, in the order of its first use."""
        query = (
            f"SELECT apportionment_rule FROM cost_requests WHERE model = '{model}' "
            "GROUP BY apportionment_rule ORDER BY min(time)"
        )
        asked = await self.meter("sql", query, "--json")
        return [row["apportionment_rule"] for row in json.loads(asked.stdout)["data"]]


def bursts(seed: int, count: int, longest_output: int) -> list[dict[str, Any]]:
    """Of 1 to 8 requests, far enough apart to be a batch each. Prompts lie above the floor of the
    simulation's prefill, where its time grows with every token."""
    draws = random.Random(seed)
    return [
        {
            "at_s": round(n * 0.1, 3),
            "input_tokens": draws.randint(200, 4000),
            "output_tokens": draws.randint(1, longest_output),
            "model": "llama_8b_sim",
        }
        for n in range(count)
        for _ in range(draws.randint(1, 8))
    ]


def alike(count: int) -> list[dict[str, Any]]:
    return [
        {"at_s": n * 0.1, "input_tokens": 500, "output_tokens": 3, "model": "llama_70b_sim"}
        for n in range(count)
    ]


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    folder = tmp_path / "stack"
    config = StackConfig(
        folder=folder,
        models=("llama_8b_sim", "llama_70b_sim"),
        emitter_env={"METER_CALIBRATION": str(folder / "calibration.toml")},
        preferred_ports=False,
    )
    async with Stack(config, only=("triton", "shipper", "worker")) as stack:
        yield Running(stack, folder)


async def test_a_known_coefficient_is_found_and_the_next_server_divides_by_it(
    running: Running,
) -> None:
    # One output token is made by the prefill, so the batch's time is base + token * input tokens.
    await running.replay([*bursts(1, 70, longest_output=1), *alike(70)])
    file = running.folder / "calibration.toml"

    code, refused = await running.calibrate("--model", "llama_70b_sim")
    (constant,) = refused["fits"]
    assert code == 1
    assert constant["refused"].startswith("can't tell")
    assert "input_token_ps from output_token_ps" in constant["refused"]
    assert not file.exists()

    code, tried = await running.calibrate("--dry-run")
    assert (code, tried["file"]) == (0, None)
    assert not file.exists()

    code, written = await running.calibrate()
    assert (code, written["file"]) == (0, str(file))
    (fit,) = [f for f in written["fits"] if "refused" not in f]
    assert (fit["model"], fit["accelerator"]) == ("llama_8b_sim", "simulated H100")
    found_us = fit["coefficients"]["input_token_ps"]["ps"] / PS_PER_US
    assert found_us == pytest.approx(LLAMA_8B.prefill_token_us, rel=0.05)
    assert fit["robust_r_squared"] > 0.99
    (entry,) = tomllib.loads(file.read_text())["calibration"]
    assert entry["version"] == fit["version"]
    assert entry["input_token_ps"] == fit["coefficients"]["input_token_ps"]["ps"]

    assert await running.rules_of("llama_8b_sim") == ["affine-shapley/2"]
    await restarted(running, running.stack.kill("triton"))
    await running.replay(bursts(2, 50, longest_output=12))
    versioned = f"affine-shapley/2@{fit['version']}"
    assert await running.rules_of("llama_8b_sim") == ["affine-shapley/2", versioned]

    # A step of a decode takes its time however many rows are in it: the run to the longest's cost.
    code, decode = await running.calibrate("--model", "llama_8b_sim", "--rule", "run-to-longest")
    assert code == 0
    (fit,) = decode["fits"]
    found_us = fit["coefficients"]["step_ps"]["ps"] / PS_PER_US
    assert found_us == pytest.approx(LLAMA_8B.step_us, rel=0.05)
    assert [e["rule"] for e in tomllib.loads(file.read_text())["calibration"]] == [
        "affine-shapley",
        "run-to-longest",
    ]


async def restarted(running: Running, killed_pid: int) -> None:
    """Until Triton is up again, as another process."""
    for _ in range(600):
        now = running.stack.endpoints.pids.get("triton")
        probe = await asyncio.to_thread(
            subprocess.run,
            ["curl", "-sSf", f"http://{running.stack.settings.triton_http}/v2/health/ready"],
            capture_output=True,
            check=False,
        )
        if now not in (None, killed_pid) and probe.returncode == 0:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("Triton did not come back")

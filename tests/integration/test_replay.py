"""``meter replay`` starts a stack where none runs, and what it stored is what the trace held."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


def test_a_traces_requests_and_tokens_arrive_in_clickhouse(tmp_path: Path) -> None:
    rows = [
        {
            "at_s": n * 0.05,
            "input_tokens": 100 + n,
            "output_tokens": 5 + n % 7,
            "cached_input_tokens": n % 50,
            "tenant": f"tenant-{n % 3}",
            "model": ("llama_8b_sim", "llama_70b_sim")[n % 10 == 0],
        }
        for n in range(200)
    ]
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "streams.cli", "replay", str(trace), "--format", "jsonl"]
    run = subprocess.run(
        [*command, "--speed", "2", "--json", "--dir", str(tmp_path / "stack")],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(run.stdout)
    expected = {
        "requests": 200,
        "input_tokens": sum(row["input_tokens"] for row in rows),
        "output_tokens": sum(row["output_tokens"] for row in rows),
    }
    assert report["replayed"] == report["answered"] == report["stored"] == expected
    assert report["problems"] == []

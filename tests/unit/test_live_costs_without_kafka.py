"""docs/examples/live_costs.py where there is no Kafka: a sentence, and no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "live_costs.py"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:99999", "foo", "", "a b:1", ":"])
def test_without_kafka_the_example_says_so_and_exits_with_1(address: str) -> None:
    done = subprocess.run(
        [sys.executable, "-I", str(EXAMPLE), "acme", "--kafka", address],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Kafka at {address!r} does not answer")

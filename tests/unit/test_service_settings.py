"""A service with an invalid setting: one sentence that names it, exit code 1, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metering.errors import MeteringError
from streams.service import ended_by_a_sentence
from streams.stack.places import REPO

SERVICES = {
    "worker": "worker",
    "shipper": "shipper",
    "sentinel": "sentinel",
    "detection": "detector",
    "reconciler": "reconciler",
}
BOOK = {"METER_PRICE_BOOK": str(REPO / "deploy" / "prices.toml")}


def ended(service: str, folder: Path, **env: str) -> str:
    """What it has said last, after an end with exit code 1."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("METER_")}
    done = subprocess.run(
        [sys.executable, "-m", f"streams.{service}"],
        env={**own, **BOOK, **env}, cwd=folder, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"the {SERVICES[service]} stops: "), done.stderr
    return last


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_names_every_setting_that_is_invalid(service: str, tmp_path: Path) -> None:
    said = ended(service, tmp_path, METER_KAFKA_SECURITY_PROTOCOL="nope", METER_METRICS_PORT="x")
    assert "METER_KAFKA_SECURITY_PROTOCOL" in said
    assert "METER_METRICS_PORT" in said


@pytest.mark.parametrize(
    ("service", "env", "named"),
    [
        ("worker", {"METER_PRICE_BOOK": "/nope.toml"}, "/nope.toml"),
        ("worker", {"METER_KAFKA": "kafka:port"}, "METER_KAFKA 'kafka:port'"),
        ("worker", {"METER_CLICKHOUSE": "nonsense"}, "'nonsense': want http(s)://HOST[:PORT]"),
        ("worker", {"METER_CLICKHOUSE_DATABASE": "a b"}, "database name 'a b'"),
        ("worker", {"METER_METRICS_HOST": "192.0.2.1"}, "METER_METRICS_HOST"),
        ("shipper", {"METER_KAFKA": ""}, "METER_KAFKA=''"),
        ("shipper", {"METER_LOG_DIR": "/proc/x"}, "METER_LOG_DIR=/proc/x"),
        ("sentinel", {"METER_METRICS_HOST": "nope.invalid"}, "METER_METRICS_HOST"),
        ("detection", {"METER_WEBHOOKS": "foo"}, "want http(s)://host"),
        (
            "detection",
            {"METER_KAFKA_SECURITY_PROTOCOL": "SSL", "METER_KAFKA_CA_FILE": "/nope"},
            "METER_KAFKA_CA_FILE=/nope",
        ),
        ("reconciler", {"METER_CLICKHOUSE": "nonsense"}, "'nonsense': want http(s)://HOST[:PORT]"),
    ],
)
def test_a_service_says_which_setting_it_can_not_use(
    service: str, env: dict[str, str], named: str, tmp_path: Path
) -> None:
    assert named in ended(service, tmp_path, **env)


def test_an_error_of_tasks_side_by_side_is_a_sentence_too() -> None:
    group = ExceptionGroup("tasks", [ExceptionGroup("more", [MeteringError("no such topic")])])
    stops = pytest.raises(SystemExit, match="the detector stops: no such topic")
    with stops, ended_by_a_sentence("detector"):
        raise group


def test_a_bug_keeps_its_traceback() -> None:
    group = ExceptionGroup("tasks", [MeteringError("foreseen"), KeyError("bug")])
    with pytest.raises(ExceptionGroup), ended_by_a_sentence("detector"):
        raise group

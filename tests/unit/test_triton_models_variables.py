"""A model in Triton and ``METER_*`` variables that nothing reads: a warning in Triton's log."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streams.stack.places import REPO

UTILITIES = """
class Logger:
    log_info = log_error = staticmethod(lambda text: None)
    log_warn = staticmethod(lambda text: print(text))
"""
LOAD = """
import json
from triton_models.emitter.front import MeteredFront
from triton_models.emitter.metered import MeteredModel

class Model(MeteredModel):
    operation = "chat"
    def load(self): ...
    def serve(self, requests): return []

class Front(MeteredFront):
    operation = "chat"

config = {"parameters": {"target": {"string_value": "m"}}}
args = {"model_config": json.dumps(config), "model_name": "m", "model_version": "1",
        "model_instance_name": "m_0_0", "model_instance_kind": "CPU",
        "model_instance_device_id": "0"}
model = KIND()
model.initialize(args)
model.finalize()
"""


def warnings_of(kind: str, folder: Path, **env: str) -> list[str]:
    (folder / "triton_python_backend_utils.py").write_text(UTILITIES)
    own = {k: v for k, v in os.environ.items() if not k.startswith("METER_")}
    own |= {"PYTHONPATH": f"{folder}:{REPO}", "METER_LOG_DIR": str(folder / "log"), **env}
    done = subprocess.run(
        [sys.executable, "-c", LOAD.replace("KIND", kind)],
        env=own, cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("kind", ["Model", "Front"])
def test_a_model_warns_once_of_a_misspelt_variable_with_the_nearest_name(
    kind: str, tmp_path: Path
) -> None:
    (warning,) = warnings_of(kind, tmp_path, METER_REGIN="eu-west", METER_KAFKA="kafka:9092")
    assert warning.startswith("m_0_0: METER_REGIN is set")
    assert "Is METER_REGION meant?" in warning
    assert "eu-west" not in warning


def test_a_model_does_not_warn_of_what_a_service_reads(tmp_path: Path) -> None:
    assert warnings_of("Model", tmp_path, METER_WEBHOOKS="", METER_JAVA="x") == []

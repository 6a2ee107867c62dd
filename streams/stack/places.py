"""Where things lie on this machine: the checkout, the per-user cache, Triton's environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import streams

REPO = Path(streams.__file__).resolve().parent.parent
LOCKS = REPO / "locks"


def cache_dir(env: Mapping[str, str] = os.environ) -> Path:
    """Per user, so that what is downloaded is downloaded once; honours ``XDG_CACHE_HOME``."""
    base = env.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base).absolute() / "inference-meter"


def triton_env(env: Mapping[str, str] = os.environ) -> Path:
    """The virtual environment that holds ``tritonserver``; ``METER_TRITON_ENV`` overrides."""
    given = env.get("METER_TRITON_ENV")
    return Path(given).absolute() if given else REPO / ".venv-triton"

"""Builders of events, for every kind of test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

from metering.usage import RequestUsage, UsageBatch
from sinks.outages import OUTAGES

# How long an example takes says more of the machine, and of what else it does, than of the code.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

NS = 10**9
NOON_NS = 1_780_000_000 * NS
"""A moment of event time, on a whole second and the start of a 10 s window."""


def make_batch(sequence: int = 0, **changes: Any) -> UsageBatch:
    """A batch of ``requests`` (dicts of changes, one by default), each with an equal part."""
    given = changes.pop("requests", [{}])
    gpu_ns = changes.pop("gpu_ns", 90_000_000)
    part, rest = divmod(gpu_ns, len(given))
    requests = []
    for position, change in enumerate(given):
        own = part + (rest if position == 0 else 0)
        values = {
            "request_id": f"r-{sequence}-{position}",
            "tenant": "acme",
            "operation": "chat",
            "input_tokens": 100,
            "output_tokens": 20,
            "gpu_ns": own,
            "input_gpu_ns": own // 3,
            "output_gpu_ns": own - own // 3,
            **change,
        }
        requests.append(RequestUsage(**values))
    values = {
        "source": "host/boot/1/tiny_0",
        "sequence": sequence,
        "boot_id": "boot",
        "model": "tiny",
        "model_version": "1",
        "instance": "tiny_0",
        "accelerator": "cpu",
        "region": "local",
        "deployment": "dev",
        "batch_size": sum(r.rows for r in requests),
        "wall_ns": gpu_ns,
        "gpu_ns": gpu_ns,
        "start_monotonic_ns": 1,
        "end_epoch_ns": NOON_NS,
        "apportionment_rule": "equal-split/1",
        "requests": tuple(requests),
        **changes,
    }
    return UsageBatch(**values)


@pytest.fixture(scope="session")
def batch_of() -> Callable[..., UsageBatch]:
    return make_batch


@pytest.fixture(autouse=True)
def _no_outage_of_another_test() -> Iterator[None]:
    """The whole process shares them: one that a test leaves open would silence the next test."""
    yield
    OUTAGES._open.clear()

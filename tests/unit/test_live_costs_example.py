"""docs/examples/live_costs.py over messages that are not what it asks for."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "live_costs.py"
ROW = (
    b'{"tenant": "acme", "final": true, "counted_to": 1, "window_start_ms": 0, "model": "m",'
    b' "window_seconds": 10, "cost_usd": "2", "requests": 1}'
)
HOSTILE = [
    None, b"", b"{", b"[]", b"null", b"1", b"\xff", b"[" * 100_000, b"{}", b'{"tenant": "acme"}',
    b'{"tenant": "acme", "lines": 1, "source": {"codes": "x"}}',
    ROW.replace(b'"2"', b'"much"').replace(b'"counted_to": 1', b'"counted_to": 9'),
    ROW.replace(b": 0", b': "then"'), ROW.replace(b'"counted_to": 1', b'"counted_to": null'),
]  # fmt: skip


class Consumer:
    """Each hostile message in either topic, then a sound one."""

    def __init__(self, requests: str, windows: str, **_: Any) -> None:
        self._topics = (requests, windows)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def __aiter__(self) -> AsyncIterator[Any]:
        values = [(topic, value) for value in HOSTILE for topic in self._topics]
        for n, (topic, value) in enumerate([*values, (self._topics[1], ROW)]):
            yield SimpleNamespace(topic=topic, value=value, key=b"k%d" % n, partition=0, offset=n)


async def test_messages_that_can_not_be_read_are_told_and_passed_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("live_costs", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "AIOKafkaConsumer", Consumer)
    monkeypatch.setattr(sys, "argv", ["live_costs.py", "acme"])
    await example.main()
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "window 0 + 10 s  m in all regions  2 USD  1 requests"
    assert len([line for line in said if "is passed over" in line]) > len(HOSTILE)

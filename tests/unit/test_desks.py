"""What a partition's work is made of: nothing is left open where it can't be made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from metering.errors import MeteringError, SinkUnavailable
from sinks.prometheus import WorkerMetrics
from streams.settings import Settings
from streams.worker import desks as desks_module
from streams.worker import epochs
from streams.worker.desks import Desk, Desks
from streams.worker.epochs import WATCHED

REPO = Path(__file__).parents[2]


class Transactions:
    """Every one that was started."""

    started: list[Transactions]

    def __init__(self, *_: object) -> None:
        self.is_stopped = False

    async def start(self) -> None:
        self.started.append(self)

    async def stop(self) -> None:
        self.is_stopped = True

    async def partitions_of(self, _: str) -> int:
        return 4


@pytest.fixture
def desks(monkeypatch: pytest.MonkeyPatch) -> Desks:
    async def nowhere(_: int) -> None:
        return None

    async def rewind(_topic: str, _partition: int) -> None:
        return

    async def no_topics(*_: object) -> dict[str, str]:
        return dict.fromkeys(WATCHED, "an-id")

    Transactions.started = []
    monkeypatch.setattr(epochs, "topic_ids", no_topics)
    monkeypatch.setattr(desks_module, "Transactions", Transactions)
    settings = Settings(price_book=REPO / "deploy" / "prices.toml")
    metrics = WorkerMetrics(CollectorRegistry())
    return Desks(settings, "app", metrics, lambda *_: True, nowhere, rewind=rewind)


@pytest.mark.parametrize("make", [Desks.pricing, Desks.totalling])
@pytest.mark.parametrize(
    "problem",
    [SinkUnavailable("Kafka", 0, "away"), MeteringError("format 9"), asyncio.CancelledError()],
    ids=lambda problem: type(problem).__name__,
)
async def test_transactions_are_stopped_where_the_state_can_not_be_read(
    desks: Desks,
    make: Callable[[Desks, int], Awaitable[Desk[object]]],
    problem: BaseException,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def read_state(*_: object) -> dict[bytes, bytes]:
        raise problem

    monkeypatch.setattr(desks_module, "read_state", read_state)
    with pytest.raises(type(problem)):
        await make(desks, 1)
    assert [t.is_stopped for t in Transactions.started] == [True]

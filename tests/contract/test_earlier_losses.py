"""What earlier servers had counted and is not stored, found again in ClickHouse."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from metering.capacity import BatchStats, CapacityHeartbeat, Failures, ModelCounters
from metering.lines import CostLines
from metering.prices import parse_price_book
from metering.pricing import price_batch
from metering.reconciliation import Verdict
from metering.usage import UsageBatch
from sinks.clickhouse.capacity import CapacityWriter
from sinks.clickhouse.schema import migrate
from streams.reconcile_earlier import earlier_losses
from streams.reconciler.judging import Judging
from streams.settings import Settings
from streams.targets import clickhouse_target
from tests.contract.conftest import ClickHouse

pytestmark = pytest.mark.stack

NS = 10**9
NOON_NS = 1_780_000_020 * NS
BOOK = parse_price_book(
    '[[gpu_hour]]\nid = "p"\naccelerator = "cpu"\nregion = "*"\n'
    'usd_per_gpu_hour = "1"\neffective_from = 2020-01-01T00:00:00Z\n',
    "book",
)


class Life:
    """Heartbeats as the reconciler stores and compares them; batches of 10 ns each."""

    def __init__(self, settings: Settings, batch_of: Callable[..., UsageBatch]) -> None:
        self.settings = settings
        self._batch_of = batch_of
        target = clickhouse_target(settings)
        self._writer, self._judging = CapacityWriter(target), Judging(target)

    def stored(self, boot: str, count: int, at_s: int) -> None:
        """One request each."""
        for n in range(count):
            batch = self._batch_of(
                n, boot_id=boot, source=f"h/{boot}/1/tiny_0", gpu_ns=10, wall_ns=10,
                end_epoch_ns=NOON_NS + at_s * NS + n, requests=[{}],
            )  # fmt: skip
            self._writer.write_lines(CostLines.of(price_batch(batch, BOOK)))

    def heard(self, boot: str, executions: int, at_s: int, failed: int = 0) -> list[Verdict]:
        counters = ModelCounters(
            model="tiny", version="1", successes=executions, failures=Failures(backend=failed),
            cache_hits=0, cache_misses=0, queue_ns=0,
            batch_stats=(
                BatchStats(size=1, executions=executions, compute_infer_ns=10 * executions),
            ),
        )  # fmt: skip
        beat = CapacityHeartbeat(
            source=f"h/{boot}/sentinel", sequence=at_s, host="h", boot_id=boot,
            time_ns=NOON_NS + at_s * NS, asked_ns=NOON_NS + at_s * NS + 5, triton_answers=True,
            models=(counters,),
        )  # fmt: skip
        self._writer.write_heartbeats([beat])
        verdicts = self._judging.judge(beat)
        self._writer.write_verdicts(verdicts, NOON_NS + at_s * NS)
        return verdicts

    async def earlier(self, now: list[Verdict]) -> list[tuple[str, int, int]]:
        found = await earlier_losses(self.settings, now)
        return [(v.boot_id, v.requests, v.missing) for v in found]

    def close(self) -> None:
        self._writer.close()
        self._judging.close()


@pytest.fixture
def life(clickhouse: ClickHouse, batch_of: Callable[..., UsageBatch]) -> Iterator[Life]:
    settings = Settings(
        clickhouse=clickhouse.url,
        clickhouse_user=clickhouse.user,
        clickhouse_password=clickhouse.password,  # type: ignore[arg-type]  # pydantic makes it one
        clickhouse_database=clickhouse.database,
    )
    migrate(clickhouse_target(settings))
    found = Life(settings, batch_of)
    yield found
    found.close()


async def test_a_loss_is_shown_after_its_server_is_gone(life: Life) -> None:
    life.stored("first", 3, at_s=0)
    now = life.heard("first", 5, at_s=10)
    assert await life.earlier(now) == [], "it is the comparison of now"
    life.stored("second", 2, at_s=20)
    now = life.heard("second", 2, at_s=30)
    assert await life.earlier(now) == [("first", 5, 2)]


async def test_usage_that_came_after_its_server_was_gone_is_no_loss(life: Life) -> None:
    life.stored("first", 3, at_s=0)
    life.heard("first", 5, at_s=10)
    now = life.heard("second", 0, at_s=30)
    assert await life.earlier(now) == [("first", 5, 2)]
    life.stored("first", 5, at_s=0)
    assert await life.earlier(now) == []


async def test_a_loss_before_a_model_was_loaded_again_is_shown(life: Life) -> None:
    """Within one server; its counters of failures go on."""
    life.stored("only", 3, at_s=0)
    life.heard("only", 4, at_s=10, failed=2)
    life.stored("only", 3, at_s=0)
    now = life.heard("only", 1, at_s=20, failed=3)
    (verdict,) = now
    assert verdict.counted_after_ns > 0, "the counters have begun anew"
    assert await life.earlier(now) == [("only", 6, 3)], "a failure with its batch"


async def test_a_loss_that_healed_while_its_server_lived_is_not_shown(life: Life) -> None:
    life.stored("first", 3, at_s=0)
    life.heard("first", 5, at_s=10)
    life.stored("first", 5, at_s=0)
    life.heard("first", 5, at_s=15)
    assert await life.earlier(life.heard("second", 0, at_s=30)) == []

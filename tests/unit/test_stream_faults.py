"""The expectation of ``make faults-stream``, and that its checks find what is wrong."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.stream_faults.emission import Emission
from benchmarks.stream_faults.expected import SUMS, Expected, divided, expect, whole_cost, windows
from benchmarks.stream_faults.journal import LATE, Journal, read
from benchmarks.stream_faults.letters import sort_letters
from benchmarks.stream_faults.lines import Lines, compare, wanted
from benchmarks.stream_faults.mischief import AGAIN_SHARE, Mischief
from benchmarks.stream_faults.published_lines import LineCheck
from benchmarks.stream_faults.published_windows import apart, behind, window_of
from benchmarks.stream_faults.stored_windows import Row, check_windows, row_of
from benchmarks.stream_faults.turmoil import TARGETS, draw_kills
from benchmarks.stream_faults.world import BATCH_SIZE, COHORT, TENANTS, misses, price_book
from metering.apportion import largest_remainder
from metering.finishing import usage_of_payload
from metering.lines import CostLines
from metering.prices import parse_price_book
from metering.pricing import gpu_cost_atto, price_batch
from metering.tenant_costs import tenant_values
from metering.wal import decode_frames
from streams.publisher import Record
from streams.topics import USAGE_BATCHES

REQUESTS = 4_000
CHANGE_S = int(time.time()) - 86_400
FAR_S = 10.0**10


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Expected, list[Record]]:
    """A short emission, and its messages in the order in which they would have been sent."""
    folder = tmp_path_factory.mktemp("faults")
    mischief: Mischief[Record] = Mischief(random.Random(3))
    journal = Journal(folder / "journal", CHANGE_S)
    emission = Emission(
        requests=REQUESTS, boots=2, seed=3, log_dir=folder / "log", journal=journal,
        mischief=mischief,
    )  # fmt: skip
    emission.emit(10**6)
    emission.close()
    journal.close()
    records = []
    while (record := mischief.take(all_of_it=True)) is not None:
        records.append(record)
    records += [
        Record(USAGE_BATCHES, b"", frame, [])
        for path in sorted((folder / "log").rglob("*.wal"))
        for frame in payloads(path)
    ]
    return expect(read(folder / "journal")), records


def payloads(path: Path) -> list[bytes]:
    return [frame.payload for frame in decode_frames(path.read_bytes())[0]]


@pytest.fixture(scope="module")
def expected(sent: tuple[Expected, list[Record]]) -> Expected:
    return sent[0]


@pytest.fixture(scope="module")
def priced(sent: tuple[Expected, list[Record]]) -> CostLines:
    """The product's own lines of the same messages, by its rule in its obvious form."""
    book = parse_price_book(price_book(CHANGE_S), "book")
    batches = {}
    for record in sent[1]:
        batch = usage_of_payload(record.value)
        batches[batch.source, batch.sequence] = batch
    return CostLines.of([line for b in batches.values() for line in price_batch(b, book)])


def rows_of(expected: Expected, seconds: int) -> list[tuple[Any, Row]]:
    """As ClickHouse would have them, all final."""
    return [(key, Row(sums, 0, True, 7)) for key, sums in windows(expected, seconds).items()]


def test_the_expectation_is_what_the_products_rule_gives(
    expected: Expected, priced: CostLines
) -> None:
    check = LineCheck(expected)
    for _, value in tenant_values(priced):
        check.take(value)
    found = check.result()
    assert (found.lines, found.missing, found.unknown, found.wrong, found.twice) == (
        len(expected.gpu_ns), 0, 0, 0, 0,
    )  # fmt: skip


def test_windows_hold_every_request_that_is_not_too_late(expected: Expected) -> None:
    for seconds in (10, 60, 3_600):
        every = windows(expected, seconds)
        late = int(((expected.emitted.batches["flags"] & LATE) > 0).sum()) * BATCH_SIZE
        assert sum(sums[0] for sums in every.values()) == len(expected.gpu_ns) - late
        assert late > 0
    cost = sum(sums[SUMS.index("cost_atto")] for sums in windows(expected, 10).values())
    in_time = np.repeat((expected.emitted.batches["flags"] & LATE) == 0, BATCH_SIZE)
    assert cost == sum(expected.cost[in_time].tolist())


@pytest.mark.parametrize("seed", range(50))
def test_division_and_rounding_are_the_products(seed: int) -> None:
    drawn = random.Random(seed)
    weights = [drawn.choice([0, 1, 1, 2, drawn.randrange(10**7)]) for _ in range(9)]
    whole = drawn.choice([0, 1, drawn.randrange(10**15)])
    assert divided(whole, weights) == largest_remainder(whole, weights)
    gpu_ns, nano = drawn.randrange(10**9), drawn.choice([1_800, drawn.randrange(10**10)])
    assert whole_cost(gpu_ns, nano) == gpu_cost_atto(gpu_ns, nano)


def test_equal_lines_are_right(expected: Expected) -> None:
    found = Lines()
    compare(found, wanted(expected, 4), wanted(expected, 4), TENANTS[4])
    assert found.is_right
    assert found.stored == len(wanted(expected, 4))


@pytest.mark.parametrize(
    ("column", "by"),
    [("cost", 1), ("input_cost", 1), ("gpu_ns", 1), ("input_tokens", 1), ("time_ns", 1),
     ("cost_high", 1), ("sound", -1), ("priced", 1)],
)  # fmt: skip
def test_a_line_that_differs_is_found(expected: Expected, column: str, by: int) -> None:
    want = wanted(expected, 4)
    stored = want.copy()
    stored[column][5] = int(stored[column][5]) + by
    found = Lines()
    compare(found, stored, want, TENANTS[4])
    assert (found.wrong, found.missing, found.twice, found.unknown) == (1, 0, 0, 0)


@pytest.mark.parametrize("column", ["model", "region", "status", "price_id"])
def test_a_line_of_another_name_is_found(expected: Expected, column: str) -> None:
    want = wanted(expected, 4)
    stored = want.copy()
    stored[column][5] = b"another"
    found = Lines()
    compare(found, stored, want, TENANTS[4])
    assert found.wrong == 1


def test_a_line_that_is_missing_twice_or_nobodys_is_found(expected: Expected) -> None:
    want = wanted(expected, 4)
    stored = np.concatenate([want[:3], want[4:], want[7:8], want[9:10]])
    stored["sequence"][-1] = 10**6
    found = Lines()
    compare(found, stored, want, TENANTS[4])
    assert (found.missing, found.twice, found.unknown, found.wrong) == (1, 1, 1, 0)
    assert not found.is_right


def test_equal_windows_are_right(expected: Expected) -> None:
    found = check_windows(rows_of(expected, 10), windows(expected, 10), FAR_S)
    assert found.is_right
    assert found.told > 0


@pytest.mark.parametrize("name", SUMS)
def test_a_window_that_differs_in_any_sum_is_found(expected: Expected, name: str) -> None:
    rows = rows_of(expected, 60)
    key, row = rows[3]
    place = SUMS.index(name)
    sums = (*row.sums[:place], row.sums[place] + 1, *row.sums[place + 1 :])
    rows[3] = key, replace(row, sums=sums)
    assert check_windows(rows, windows(expected, 60), FAR_S).wrong == 1


def test_windows_missing_twice_nobodys_or_open_are_found(expected: Expected) -> None:
    rows = rows_of(expected, 10)
    (seconds, start, *cohort), row = rows[5]
    changed = [
        *rows[1:], rows[2], ((seconds, start + 10**6, *cohort), row),
    ]  # fmt: skip
    changed[0] = rows[1][0], replace(rows[1][1], final=False)
    found = check_windows(changed, windows(expected, 10), FAR_S)
    assert (found.missing, found.twice, found.unknown, found.open) == (1, 1, 1, 1)
    early = check_windows([(rows[0][0], replace(rows[0][1], final=False))], {}, 0.0)
    assert early.open == 0


def test_what_nothing_adds_to_must_be_nothing(expected: Expected) -> None:
    rows = rows_of(expected, 10)
    rows[0] = rows[0][0], replace(rows[0][1], other=1)
    assert check_windows(rows, windows(expected, 10), FAR_S).wrong == 1


def test_a_line_on_the_topic_that_differs_or_comes_again_is_found(
    expected: Expected, priced: CostLines
) -> None:
    check = LineCheck(expected)
    values = [value for _, value in tenant_values(priced)]
    for value in [*values[1:], values[2]]:
        check.take(value)
    found = check.result()
    assert found.missing > 0
    assert found.twice > 0
    assert found.wrong == found.unknown == 0
    check = LineCheck(expected)
    one = next(line for line in priced if line.cost_usd)
    check.take(next(tenant_values(CostLines.of([
        one.model_copy(update={"cost_usd": one.cost_usd + Decimal("1e-18")}),
    ])))[1])  # fmt: skip
    check.take(next(tenant_values(CostLines.of([one.model_copy(update={"source": "?"})])))[1])
    assert (check.result().wrong, check.result().unknown) == (1, 1)


def test_a_latest_row_that_is_not_the_stored_one_is_told() -> None:
    row = Row((1,) * len(SUMS), 0, True, 3)
    key = (10, 100, *COHORT)
    assert apart({key: row}, {key: row}) == []
    for other in (
        replace(row, sums=(2,) * len(SUMS)), replace(row, final=False), replace(row, counted_to=4),
    ):  # fmt: skip
        assert len(apart({key: other}, {key: row})) == 1
    assert len(apart({}, {key: row})) == len(apart({key: row}, {})) == 1


def test_a_row_that_a_dead_worker_wrote_and_did_not_publish_is_no_fault_and_counted() -> None:
    row = Row((1,) * len(SUMS), 0, True, 3)
    key = (10, 100, *COHORT)
    assert apart({key: replace(row, counted_to=2)}, {key: row}) == []
    assert behind({key: replace(row, counted_to=2)}, {key: row}) == 1
    assert behind({key: row}, {key: row}) == 0


def test_a_row_is_read_alike_from_topic_and_table() -> None:
    names = [*(n for n in SUMS if not n.endswith("_atto"))]
    document = {
        "window_seconds": 10, "window_start_ms": 20_000, "final": True, "counted_to": 5,
        **dict.fromkeys(COHORT, "x"), **dict.fromkeys(names, 3),
        "cost_usd": "0.000000000000000007", "input_cost_usd": "2.5", "output_cost_usd": "0",
    }  # fmt: skip
    money = [Decimal("0.000000000000000007"), Decimal("2.500000000000000000"), Decimal("0")]
    stored = (10, 20, *["x" for _ in COHORT], *[3 for _ in names], *money, 0, True, 5)
    assert window_of(document) == row_of(stored)
    assert row_of(stored)[1].sums[-3:] == (7, 25 * 10**17, 0)


def test_letters_are_for_what_is_late_and_for_nothing_else(expected: Expected) -> None:
    emitted = expected.emitted
    late = [
        {"original_ce_source": emitted.sources[b["source"]].name,
         "original_ce_id": str(b["sequence"]), "meter_reason": "late"}
        for b in emitted.batches if b["flags"] & LATE
    ]  # fmt: skip
    found = sort_letters([*late, late[0]], expected)
    assert (found.late, found.missing, found.repeated) == (len(late), 0, 1)
    assert not found.others
    others = [{**late[1], "meter_reason": "invalid"}, {**late[1], "original_ce_id": "x"}]
    found = sort_letters([*late[2:], *others], expected)
    assert found.missing == 2
    assert found.others == Counter(invalid=1, late=1)


def test_lateness_is_certain_or_unknown() -> None:
    now_ns = 1_780_000_000 * 10**9
    hour_ns = 3_600 * 10**9
    assert misses(now_ns - 50 * hour_ns, now_ns, 86_400) is True
    assert misses(now_ns, now_ns, 10) is False
    assert misses(now_ns - 45 * 10**9, now_ns, 60) in (False, None)
    assert misses(now_ns - 150 * 10**9, now_ns, 10) is None
    assert misses(now_ns - 3 * hour_ns, now_ns, 3_600) is True


def test_every_message_is_sent_and_some_again_near_and_far() -> None:
    mischief: Mischief[int] = Mischief(random.Random(1))
    sent: list[int] = []
    for n in range(20_000):
        mischief.put(n)
        while (message := mischief.take()) is not None:
            sent.append(message)
    while (message := mischief.take(all_of_it=True)) is not None:
        sent.append(message)
    counts = Counter(sent)
    assert set(counts) == set(range(20_000))
    assert mischief.again == sum(counts.values()) - 20_000
    assert abs(mischief.again / 20_000 - AGAIN_SHARE) < 0.01
    assert sent != sorted(sent)
    assert mischief.waiting == 0


def test_kills_hit_all_targets_and_workers_come_and_go() -> None:
    kills = draw_kills(1, 100, 0.5)
    assert Counter(k.target for k in kills) == {t: 20 * n for t, n in Counter(TARGETS).items()}
    assert draw_kills(1, 100, 0.5) == kills
    assert {k.change for k in kills} == {None, "grow", "roll", "shrink", "shrink by kill"}
    assert {k.waits for k in kills} == {True, False}

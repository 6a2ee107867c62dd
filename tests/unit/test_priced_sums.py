"""Costs are divided by what was priced; what earlier versions saved without these sums is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from metering.additions import TALLY, Additions, Mark, decode, encode
from metering.costs import WindowRow
from metering.prices import PriceBook, parse_price_book
from metering.pricing import price_batch
from metering.totals import Keeping, Totals, add, tell
from metering.totals_records import changed_records, totals_of
from metering.usage import UsageBatch
from metering.window_rows import values_of
from metering.window_sums import words_of
from metering.windows import WindowKey, WindowState, close, count

MakeBatch = Callable[..., UsageBatch]
NS = 10**9
NOON_S = 1_780_000_020
COHORT = ("acme", "tiny", "eu")
FIRST = len(TALLY) - 3
"""The fields that the first format had."""
BOOK = parse_price_book(
    '[[gpu_hour]]\nid = "p"\naccelerator = "cpu"\nregion = "*"\n'
    'usd_per_gpu_hour = "3600"\neffective_from = 2020-01-01T00:00:00Z\n',
    "book",
)
NO_BOOK = PriceBook([])


def rows_of(batch_of: MakeBatch, *books: PriceBook) -> list[WindowRow]:
    """The 10 s row of as many batches of one request, each with 100 and 20 tokens and 1 s."""
    state = WindowState()
    request = {"input_tokens": 100, "output_tokens": 20}
    for n, book in enumerate(books):
        batch = batch_of(n, gpu_ns=NS, requests=[request])
        count(state, price_batch(batch, book), n, retention_ns=0)
    return [row for row in close(state, 0, provisional=True) if row.window_seconds == 10]


def test_a_cohort_without_a_price_has_no_unit_costs(batch_of: MakeBatch) -> None:
    (row,) = rows_of(batch_of, NO_BOOK, NO_BOOK)
    assert (row.requests, row.unpriced_requests, row.input_tokens) == (2, 2, 200)
    assert (row.priced_requests, row.priced_input_tokens, row.priced_output_tokens) == (0, 0, 0)
    assert row.usd_per_million_input_tokens is None
    assert row.usd_per_million_output_tokens is None
    assert row.usd_per_request is None


def test_unpriced_requests_leave_the_unit_costs_as_they_are(batch_of: MakeBatch) -> None:
    (priced,) = rows_of(batch_of, BOOK)
    (mixed,) = rows_of(batch_of, BOOK, NO_BOOK, NO_BOOK)
    assert (mixed.requests, mixed.input_tokens, mixed.output_tokens) == (3, 300, 60)
    assert (mixed.priced_requests, mixed.priced_input_tokens) == (1, 100)
    assert mixed.usd_per_million_input_tokens == priced.usd_per_million_input_tokens
    assert mixed.usd_per_million_output_tokens == priced.usd_per_million_output_tokens
    assert mixed.usd_per_request == priced.usd_per_request == Decimal(1)


@pytest.mark.parametrize(
    ("requests", "unpriced", "expected"),
    [(4, 0, (4, 30, 70)), (4, 4, (0, 0, 0)), (4, 1, (3, None, None)), (0, 0, (0, 30, 70))],
)
class TestWhatWasSavedBefore:
    """All priced, none, in part, and none at all."""

    def sums(self, requests: int, unpriced: int) -> dict[str, int]:
        return {
            "requests": requests, "unpriced_requests": unpriced, "input_tokens": 30,
            "output_tokens": 70, "cost_atto": 5 * 10**27, "input_cost_atto": 3, "gpu_ns": 2**63,
        }  # fmt: skip

    def found(self, totals: Totals) -> tuple[Any, ...]:
        rows = tell(totals, (10,))
        (row,) = rows
        assert row.cost_usd == Decimal(5 * 10**9)
        assert row.gpu_ns == 2**63
        (document,) = map(json.loads, values_of(rows))
        assert document["priced_input_tokens"] == row.priced_input_tokens
        assert (document["usd_per_million_input_tokens"] is None) == (not row.priced_input_tokens)
        return row.priced_requests, row.priced_input_tokens, row.priced_output_tokens

    def test_totals(self, requests: int, unpriced: int, expected: tuple[Any, ...]) -> None:
        words = np.zeros((1, FIRST, 2), "<i8")
        for name, value in self.sums(requests, unpriced).items():
            words[0, TALLY.index(name)] = divmod(value, 10**9)[::-1]
        head = json.dumps([1, False, FIRST, [COHORT]], separators=(",", ":")).encode()
        saved = {f"10/{NOON_S}/0".encode(): head + b"\n" + words.tobytes()}
        totals = totals_of(saved)
        assert self.found(totals) == expected
        window = totals.windows[WindowKey(NOON_S, 10)]
        window.add([COHORT], words_of([np.array([1], np.int64) for _ in TALLY]))
        again = totals_of(
            {key: value for key, value in changed_records(totals) if value is not None}
        )
        again.windows[WindowKey(NOON_S, 10)].close()
        (row,) = tell(again, (10,))
        assert row.priced_requests == expected[0] + 1
        assert row.priced_input_tokens == (None if expected[1] is None else expected[1] + 1)

    def test_additions(self, requests: int, unpriced: int, expected: tuple[Any, ...]) -> None:
        values = [np.zeros(1, object) for _ in range(FIRST)]
        for name, value in self.sums(requests, unpriced).items():
            values[TALLY.index(name)][0] = value
        zero = np.zeros(1, np.int64)
        sent = encode(Mark(0, 1, 1, 5, 0, 0), Additions([COHORT], zero + NOON_S, zero, values))
        assert b'"format":2' in sent
        totals = Totals()
        mark, found = decode(sent.replace(b'"format":2', b'"format":1'))
        add(totals, 0, mark, found, Keeping())
        assert self.found(totals) == expected

    def test_rows_of_the_topic(
        self, requests: int, unpriced: int, expected: tuple[Any, ...]
    ) -> None:
        names = ("retries", "batch_size_sum", "cached_input_tokens", "gpu_ns", "input_gpu_ns")
        row = {
            "window_start_ms": NOON_S * 1000, "window_seconds": 10, "tenant": "a", "model": "m",
            "final": True, "counted_to": 1, "requests": requests, "unpriced_requests": unpriced,
            "input_tokens": 30, "output_tokens": 70, **dict.fromkeys((*names, "output_gpu_ns"), 0),
            "cost_usd": "5", "input_cost_usd": "3", "output_cost_usd": "2",
        }  # fmt: skip
        found = WindowRow.model_validate_json(json.dumps(row))
        assert (
            found.priced_requests, found.priced_input_tokens, found.priced_output_tokens
        ) == expected  # fmt: skip
        assert WindowRow.model_validate_json(found.model_dump_json()) == found

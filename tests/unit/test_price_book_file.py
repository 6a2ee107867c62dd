"""The price book's file, and what becomes of it while it is in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from metering.errors import InvalidPriceBook
from streams.worker.book import PriceBookFile
from tests.unit.price_books import entry


def test_a_book_that_is_gone_for_a_while_stays_in_use(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(entry("3.60"))
    prices = PriceBookFile(path)
    path.unlink()
    assert not prices.refresh()
    assert not prices.ok
    assert len(prices.book) == 1
    path.write_text(entry("3.60") + entry("9", accelerator="H100"))
    assert prices.refresh()
    assert prices.ok
    assert len(prices.book) == 2


def test_a_book_that_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(entry("3.60"))
    prices = PriceBookFile(path)
    held = prices.book
    assert not prices.refresh()
    assert prices.book is held


def test_a_worker_does_not_begin_without_a_readable_book(tmp_path: Path) -> None:
    with pytest.raises(InvalidPriceBook, match=r"prices\.toml"):
        PriceBookFile(tmp_path / "prices.toml")

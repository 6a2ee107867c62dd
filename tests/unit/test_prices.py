"""The price book: what holds when, and what is said about a bad one."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from metering.errors import InvalidPriceBook, UnknownPrice
from metering.prices import parse_price_book, read_price_book

NS = 10**9
JAN = 1_767_225_600 * NS  # 2026-01-01T00:00:00Z
FEB = 1_769_904_000 * NS

BOOK = """
[[gpu_hour]]
id = "jan"
accelerator = "H100"
region = "eu"
usd_per_gpu_hour = "2.50"
effective_from = 2026-01-01T00:00:00Z

[[gpu_hour]]
id = "feb"
accelerator = "H100"
region = "eu"
usd_per_gpu_hour = "3.00"
effective_from = 2026-02-01T00:00:00Z

[[gpu_hour]]
id = "anywhere"
accelerator = "H100"
region = "*"
usd_per_gpu_hour = "9.999999999"
effective_from = 2026-01-01T01:00:00+01:00
"""


@pytest.mark.parametrize(
    ("region", "when_ns", "expected"),
    [
        ("eu", JAN, "jan"),
        ("eu", FEB - 1, "jan"),
        ("eu", FEB, "feb"),
        ("us", JAN, "anywhere"),
    ],
)
def test_a_price_holds_from_its_moment_until_the_next(
    region: str, when_ns: int, expected: str
) -> None:
    assert parse_price_book(BOOK, "book").at("H100", region, when_ns).id == expected


@pytest.mark.parametrize(
    ("accelerator", "when_ns"), [("H200", FEB), ("H100", JAN - 1), ("h100", FEB)]
)
def test_a_price_that_is_not_there_is_an_error_not_a_guess(accelerator: str, when_ns: int) -> None:
    with pytest.raises(UnknownPrice, match=accelerator):
        parse_price_book(BOOK, "book").at(accelerator, "eu", when_ns)


def test_prices_stay_exact() -> None:
    price = parse_price_book(BOOK, "book").at("H100", "us", FEB)
    assert price.usd_per_gpu_hour == Decimal("9.999999999")
    assert price.nano_usd_per_gpu_hour == 9_999_999_999


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('usd_per_gpu_hour = "2.50"', 'usd_per_gpu_hour = "-1"', "usd_per_gpu_hour"),
        ('usd_per_gpu_hour = "2.50"', 'usd_per_gpu_hour = "1000000"', "less than 1000000"),
        ('usd_per_gpu_hour = "2.50"', 'usd_per_gpu_hour = "NaN"', "usd_per_gpu_hour"),
        ('usd_per_gpu_hour = "2.50"', 'usd_per_gpu_hour = "cheap"', "cheap"),
        ('usd_per_gpu_hour = "2.50"', 'usd_per_gpu_hour = "0.0000000001"', "usd_per_gpu_hour"),
        ("2026-02-01T00:00:00Z", "2026-02-01T00:00:00", "effective_from"),
        ("2026-02-01T00:00:00Z", "2026-01-01T00:00:00Z", "effective_from"),
        ('region = "eu"', "", "region"),
        ('id = "jan"', 'id = "jan"\nusd = 3', "usd"),
        ("[[gpu_hour]]", "[[gpu_hours]]", "gpu_hour"),
        ("[[gpu_hour]]", "[[gpu_hour", "not TOML"),
    ],
)
def test_a_bad_book_is_refused_and_the_field_is_named(old: str, new: str, named: str) -> None:
    with pytest.raises(InvalidPriceBook, match=named) as refusal:
        parse_price_book(BOOK.replace(old, new), "my-book.toml")
    assert "my-book.toml" in str(refusal.value)


def test_a_missing_book_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidPriceBook, match=r"none\.toml"):
        read_price_book(tmp_path / "none.toml")


def test_the_example_book_can_be_read() -> None:
    book = read_price_book(Path(__file__).parents[2] / "deploy" / "prices.toml")
    assert book.at("simulated H100", "eu-west", FEB).usd_per_gpu_hour > 0
    assert book.at("cpu", "anywhere", FEB).usd_per_gpu_hour > 0

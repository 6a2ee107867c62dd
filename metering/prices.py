"""The price book: what a GPU-hour costs, by accelerator, region and time, as data.

A TOML file of ``[[gpu_hour]]`` entries::

    [[gpu_hour]]
    id = "h100-on-demand"
    accelerator = "NVIDIA H100"
    region = "eu-west"              # or "*": every region that has no entry of its own
    purchase_option = "on_demand"
    usd_per_gpu_hour = "2.99"       # text, so that it stays exact
    effective_from = 2026-01-01T00:00:00Z
    source = "the contract of January"

An entry holds until the next one of the same accelerator and region begins.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from metering.errors import InvalidPriceBook, UnknownPrice

ANY_REGION = "*"
UNKNOWN_GPU = "unknown-gpu"
UNKNOWN = "unknown"
"""No price book has them, so what runs there is unpriced until the model names its accelerator."""
NANO = 10**9
BELOW_USD = 1_000_000
"""Beyond that it is a typing error. At less, no batch costs more than a window may
(``metering.window_sums``)."""


class GpuHourPrice(BaseModel):
    """One price with the moment from which it holds. At most 9 decimals, below ``BELOW_USD``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(min_length=1)]
    accelerator: Annotated[str, Field(min_length=1)]
    region: Annotated[str, Field(min_length=1)]
    purchase_option: Literal[
        "on_demand", "spot", "committed_1y", "committed_3y", "owned_amortised"
    ] = "on_demand"
    usd_per_gpu_hour: Annotated[Decimal, Field(ge=0, lt=BELOW_USD, decimal_places=9)]
    effective_from: AwareDatetime
    source: str = ""

    @property
    def nano_usd_per_gpu_hour(self) -> int:
        return int(self.usd_per_gpu_hour * NANO)

    @property
    def effective_from_ns(self) -> int:
        return _epoch_ns(self.effective_from)


class PriceBook:
    """Prices by accelerator and region, each a series in time. Immutable once made."""

    def __init__(self, prices: Iterable[GpuHourPrice]) -> None:
        series: dict[tuple[str, str], list[GpuHourPrice]] = defaultdict(list)
        for price in prices:
            series[price.accelerator, price.region].append(price)
        self._series = {
            key: sorted(entries, key=lambda p: p.effective_from) for key, entries in series.items()
        }
        self._starts = {
            key: [p.effective_from_ns for p in entries] for key, entries in self._series.items()
        }
        for (accelerator, region), starts in self._starts.items():
            for earlier, later in pairwise(starts):
                if earlier == later:
                    raise InvalidPriceBook(
                        f"two prices of accelerator={accelerator!r} region={region!r} "
                        "have the same effective_from"
                    )

    def __len__(self) -> int:
        return sum(map(len, self._series.values()))

    def at(self, accelerator: str, region: str, when_ns: int) -> GpuHourPrice:
        """The price that holds at ``when_ns`` (epoch, ns): the region's own, else any region's.

        Raises:
            UnknownPrice: no entry holds there and then.
        """
        for key in ((accelerator, region), (accelerator, ANY_REGION)):
            starts = self._starts.get(key)
            if starts is not None:
                position = bisect_right(starts, when_ns)
                if position > 0:
                    return self._series[key][position - 1]
        when = datetime.fromtimestamp(when_ns // NANO, UTC).isoformat()
        raise UnknownPrice(accelerator, region, when)


def parse_price_book(text: str, name: str) -> PriceBook:
    """TOML to a price book; ``name`` is what error messages call it.

    Raises:
        InvalidPriceBook: naming the file, the entry, the field and the value.
    """
    try:
        entries = tomllib.loads(text).get("gpu_hour", [])
    except tomllib.TOMLDecodeError as exc:
        raise InvalidPriceBook(f"{name}: not TOML: {exc}") from exc
    if not isinstance(entries, list) or not entries:
        raise InvalidPriceBook(f"{name}: no [[gpu_hour]] entry")
    prices = []
    for number, entry in enumerate(entries, 1):
        try:
            prices.append(GpuHourPrice.model_validate(entry))
        except ValidationError as exc:
            problem = exc.errors()[0]
            field = ".".join(map(str, problem["loc"])) or "entry"
            raise InvalidPriceBook(
                f"{name}: [[gpu_hour]] number {number}: {field}: {problem['msg']} "
                f"(got {problem['input']!r})"
            ) from exc
    try:
        return PriceBook(prices)
    except InvalidPriceBook as exc:
        raise InvalidPriceBook(f"{name}: {exc}") from exc


def read_price_book(path: Path) -> PriceBook:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise InvalidPriceBook(
            f"{path}: can't be read as the price book, which METER_PRICE_BOOK names: {exc.strerror}"
        ) from exc
    except UnicodeDecodeError as exc:
        raise InvalidPriceBook(f"{path}: not UTF-8: {exc}") from exc
    return parse_price_book(text, str(path))


def _epoch_ns(moment: datetime) -> int:
    """Exact to the microsecond; ``timestamp()`` would round through a float."""
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return ((delta.days * 86_400 + delta.seconds) * 10**6 + delta.microseconds) * 1_000

"""A price that changes while the stack runs: a new, dated entry in the price book's file."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from metering.prices import GpuHourPrice, read_price_book


def announce(
    book: Path, accelerator: str, region: str, factor: Decimal, from_ns: int
) -> GpuHourPrice:
    """Append an entry that holds from ``from_ns`` (epoch): the price of then, times ``factor``.

    The file is replaced in one step, so that no reader meets half an entry.

    Raises:
        UnknownPrice: there is no price to multiply.
    """
    price = read_price_book(book).at(accelerator, region, from_ns)
    moment = datetime.fromtimestamp(from_ns // 10**9, UTC)
    changed = price.model_copy(
        update={
            "id": f"{price.id}-from-{moment:%Y%m%dT%H%M%SZ}",
            "region": region,
            "usd_per_gpu_hour": price.usd_per_gpu_hour * factor,
            "effective_from": moment,
        }
    )
    entry = (
        "\n[[gpu_hour]]\n"
        f'id = "{changed.id}"\n'
        f'accelerator = "{changed.accelerator}"\n'
        f'region = "{changed.region}"\n'
        f'usd_per_gpu_hour = "{changed.usd_per_gpu_hour:f}"\n'
        f"effective_from = {moment:%Y-%m-%dT%H:%M:%SZ}\n"
        'source = "the demo: a price change"\n'
    )
    temporary = book.with_suffix(".new")
    temporary.write_text(book.read_text(encoding="utf-8") + entry, encoding="utf-8")
    os.replace(temporary, book)
    return changed

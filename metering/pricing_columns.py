"""Frames of usage to priced lines, column by column; held to ``metering.pricing.price_batch``."""

from __future__ import annotations

import numpy as np

from metering.columns import SAFE, Column, Ints, Whole, recoded, whole
from metering.division import divide, divide_in_two
from metering.errors import UnknownPrice
from metering.frame import Frame
from metering.lines import CostLines
from metering.prices import GpuHourPrice, PriceBook
from metering.usage_columns import PAYER

SECONDS_PER_HOUR = 3_600
"""Nanoseconds and nanodollars make attodollars, so of an hour only its seconds are left."""
_OF_BATCH = {
    "source": "source", "sequence": "sequence", "time_ns": "end_epoch_ns", "boot_id": "boot_id",
    "region": "region", "deployment": "deployment", "model": "model",
    "model_version": "model_version", "instance": "instance", "accelerator": "accelerator",
    "device": "device", "speedup": "speedup", "executed": "executed", "batch_size": "batch_size",
    "batch_wall_ns": "wall_ns", "apportionment_rule": "apportionment_rule",
    "batch_invalid": "invalid",
}  # fmt: skip
"""A line's field, and the event's that it comes from."""
_OF_REQUEST = (
    "operation", "status", "rows", "input_tokens", "cached_input_tokens", "output_tokens",
    "reasoning_tokens", "queue_ns", "gpu_ns", "input_gpu_ns", "padding_gpu_ns", "prefill_gpu_ns",
    "decode_gpu_ns", "invalid",
)  # fmt: skip


def price(frame: Frame, book: PriceBook) -> CostLines:
    """One line per request, in order. An unknown price makes an ``unpriced`` line."""
    columns: dict[str, Column] = {
        name: frame.batches[field].take(frame.batch) for name, field in _OF_BATCH.items()
    }
    for name in _OF_REQUEST:
        columns[name] = frame.requests[name]
    columns["request_id"] = frame.request_ids
    columns["position"] = Ints(np.arange(len(frame.batch)) - frame.starts[frame.batch])
    columns["output_gpu_ns"] = Ints(frame.of_request("gpu_ns") - frame.of_request("input_gpu_ns"))
    payer = frame.of_request("payer")
    for n, name in enumerate(PAYER):
        columns[name] = recoded([p[n] for p in frame.payers], payer)
    columns |= _costs(frame, _prices(frame, book))
    return CostLines(len(frame.batch), columns)


def _prices(frame: Frame, book: PriceBook) -> list[GpuHourPrice | None]:
    """Of each event."""
    names = (frame.batches["accelerator"].tolist(), frame.batches["region"].tolist())
    found: list[GpuHourPrice | None] = []
    for accelerator, region, when_ns in zip(
        *names, frame.of_batch("end_epoch_ns").tolist(), strict=True
    ):
        try:
            found.append(book.at(accelerator, region, when_ns))
        except UnknownPrice:
            found.append(None)
    return found


def gpu_costs_atto(gpu_ns: Whole, nano_usd_per_gpu_hour: Whole) -> Whole:
    """``metering.pricing.gpu_cost_atto`` of each: time × price / 3600, rounded half to even."""
    if float(gpu_ns.max()) * float(nano_usd_per_gpu_hour.max()) >= SAFE:
        gpu_ns = gpu_ns.astype(object)
    product = gpu_ns * nano_usd_per_gpu_hour
    atto = product // SECONDS_PER_HOUR
    rest = product - atto * SECONDS_PER_HOUR
    half = SECONDS_PER_HOUR // 2
    rounded: Whole = atto + ((rest > half) | ((rest == half) & (atto % 2 == 1)))
    return rounded


def _costs(frame: Frame, prices: list[GpuHourPrice | None]) -> dict[str, Column]:
    distinct = {id(p): p for p in prices}
    places = {key: n for n, key in enumerate(distinct)}
    of_batch = np.array([places[id(p)] for p in prices], np.int32)
    codes = of_batch[frame.batch]
    few = list(distinct.values())
    known = np.array([p is not None for p in few], np.bool_)[codes]
    nano = whole([0 if p is None else p.nano_usd_per_gpu_hour for p in few])
    wholes = gpu_costs_atto(frame.of_batch("gpu_ns"), nano[of_batch])
    gpu_ns, input_gpu_ns = frame.of_request("gpu_ns"), frame.of_request("input_gpu_ns")
    total = divide(wholes, gpu_ns, frame.starts, frame.batch)
    inputs = divide_in_two(total, input_gpu_ns, gpu_ns - input_gpu_ns)
    told = None if known.all() else known
    return {
        "pricing_status": recoded(["unpriced" if p is None else "priced" for p in few], codes),
        "price_id": recoded(["" if p is None else p.id for p in few], codes),
        "usd_per_gpu_hour": recoded(
            [None if p is None else p.usd_per_gpu_hour for p in few], codes
        ),
        "cost_usd": Ints(total, told),
        "input_cost_usd": Ints(inputs, told),
        "output_cost_usd": Ints(total - inputs, told),
    }

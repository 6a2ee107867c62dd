"""A batch of usage to priced lines. The lines' costs sum to the batch's, to the attodollar.

The rule in its obvious form, request by request. The stream prices in columns
(``metering.pricing_columns``), which are held to this.
"""

from __future__ import annotations

from dataclasses import dataclass

from metering.apportion import largest_remainder
from metering.costs import CostLine
from metering.errors import UnknownPrice
from metering.money import NS_PER_HOUR, usd
from metering.prices import GpuHourPrice, PriceBook
from metering.usage import UsageBatch

_ATTO_PER_NANO = 10**9


def gpu_cost_atto(gpu_ns: int, nano_usd_per_gpu_hour: int) -> int:
    """GPU time × price in attodollars, rounded half to even: the only rounding there is."""
    atto, rest = divmod(gpu_ns * nano_usd_per_gpu_hour * _ATTO_PER_NANO, NS_PER_HOUR)
    half = NS_PER_HOUR // 2
    if rest > half or (rest == half and atto % 2 == 1):
        atto += 1
    return atto


@dataclass(frozen=True, slots=True)
class _Costs:
    total: int
    inputs: int
    outputs: int


def price_batch(batch: UsageBatch, book: PriceBook) -> list[CostLine]:
    """One line per request, in the batch's order. Never raises for an unknown price: says so."""
    try:
        price: GpuHourPrice | None = book.at(batch.accelerator, batch.region, batch.end_epoch_ns)
    except UnknownPrice:
        price = None
    costs = _apportioned_costs(batch, price)
    return [
        CostLine.model_construct(
            source=batch.source,
            sequence=batch.sequence,
            position=position,
            time_ns=batch.end_epoch_ns,
            boot_id=batch.boot_id,
            request_id=request.request_id,
            retry_of=request.retry_of,
            tenant=request.tenant,
            team=request.team,
            project=request.project,
            user=request.user,
            identity_source=request.identity_source,
            region=batch.region,
            deployment=batch.deployment,
            model=batch.model,
            model_version=batch.model_version,
            instance=batch.instance,
            accelerator=batch.accelerator,
            device=batch.device,
            speedup=batch.speedup,
            operation=request.operation,
            status=request.status,
            executed=batch.executed,
            rows=request.rows,
            batch_size=batch.batch_size,
            batch_wall_ns=batch.wall_ns,
            input_tokens=request.input_tokens,
            cached_input_tokens=request.cached_input_tokens,
            output_tokens=request.output_tokens,
            reasoning_tokens=request.reasoning_tokens,
            queue_ns=request.queue_ns,
            gpu_ns=request.gpu_ns,
            input_gpu_ns=request.input_gpu_ns,
            output_gpu_ns=request.output_gpu_ns,
            padding_gpu_ns=request.padding_gpu_ns,
            prefill_gpu_ns=request.prefill_gpu_ns,
            decode_gpu_ns=request.decode_gpu_ns,
            apportionment_rule=batch.apportionment_rule,
            invalid=request.invalid,
            batch_invalid=batch.invalid,
            pricing_status="unpriced" if cost is None else "priced",
            price_id="" if price is None else price.id,
            usd_per_gpu_hour=None if price is None else price.usd_per_gpu_hour,
            cost_usd=None if cost is None else usd(cost.total),
            input_cost_usd=None if cost is None else usd(cost.inputs),
            output_cost_usd=None if cost is None else usd(cost.outputs),
        )
        for position, (request, cost) in enumerate(zip(batch.requests, costs, strict=True))
    ]


def _apportioned_costs(batch: UsageBatch, price: GpuHourPrice | None) -> list[_Costs | None]:
    if price is None:
        return [None] * len(batch.requests)
    whole = gpu_cost_atto(batch.gpu_ns, price.nano_usd_per_gpu_hour)
    costs: list[_Costs | None] = []
    for part, request in zip(
        largest_remainder(whole, [r.gpu_ns for r in batch.requests]), batch.requests, strict=True
    ):
        inputs, outputs = largest_remainder(part, (request.input_gpu_ns, request.output_gpu_ns))
        costs.append(_Costs(part, inputs, outputs))
    return costs

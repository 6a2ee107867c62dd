"""The public contract downstream: priced lines, window rows, anomalies."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, WithJsonSchema, computed_field, model_validator

from metering.money import quotient
from metering.priced import PRICED, priced_of_row
from metering.usage import EpochNs, Frozen, IdentitySource, Name, NonNegative, Operation, Outcome

Driver = Literal["volume", "input_length", "output_length", "gpu_time_per_token", "price"]
DRIVERS: tuple[Driver, ...] = (
    "volume",
    "input_length",
    "output_length",
    "gpu_time_per_token",
    "price",
)


class CostLine(Frozen):
    """One request, priced; ``(source, sequence, position)`` identifies it for ever.

    Costs are USD with 18 decimals; those of a batch sum to the batch's exactly. An ``unpriced``
    line has no cost (``None``), never 0. ``invalid`` says what was wrong with what was told of the
    request, ``batch_invalid`` of its batch; "" where nothing was.
    """

    source: Name
    sequence: NonNegative
    position: NonNegative
    time_ns: EpochNs
    boot_id: str
    request_id: str
    retry_of: str | None
    tenant: str
    team: str
    project: str
    user: str
    identity_source: IdentitySource
    region: str
    deployment: str
    model: str
    model_version: str
    instance: str
    accelerator: str
    device: str = ""
    speedup: int
    operation: Operation
    status: Outcome
    executed: bool = True
    rows: int
    batch_size: int
    batch_wall_ns: NonNegative = 0
    input_tokens: NonNegative
    cached_input_tokens: NonNegative
    output_tokens: NonNegative
    reasoning_tokens: NonNegative
    queue_ns: int | None
    gpu_ns: NonNegative
    input_gpu_ns: NonNegative
    output_gpu_ns: NonNegative
    padding_gpu_ns: NonNegative = 0
    prefill_gpu_ns: int | None = None
    decode_gpu_ns: int | None = None
    apportionment_rule: str
    invalid: str = ""
    batch_invalid: str = ""
    pricing_status: Literal["priced", "unpriced"]
    price_id: str
    usd_per_gpu_hour: Decimal | None
    cost_usd: Decimal | None
    input_cost_usd: Decimal | None
    output_cost_usd: Decimal | None


Total = Annotated[int, Field(ge=0, lt=2**64)]


class WindowRow(Frozen):
    """Unit costs of one cohort (tenant × model × region) in one tumbling window of event time.

    A row replaces every row of the same window and cohort with a lower ``counted_to``, the
    offset in the usage topic up to which it has counted. ``final`` says that the watermark has
    passed the window's end; a late event makes another final row. ``batch_size_sum`` is the sum
    over the requests of the size of the batch that each was in. ``requests`` were executed or
    answered from the cache (``cache_hits``); ``refused_requests`` are apart: they got nothing and
    cost nothing. ``wasted_gpu_ns`` is the part of ``gpu_ns`` that went into answers that nobody
    got.

    Unpriced requests are in every count but in no cost. Costs are divided by the sums of priced
    requests alone, so a quotient is ``None`` where nothing was priced. Of a row that an earlier
    version wrote without these sums, what is not known is ``None`` too.
    """

    window_start_ms: int
    window_seconds: Annotated[int, Field(gt=0)]
    tenant: str
    model: str
    region: str = ""
    final: bool
    counted_to: int
    requests: Total
    retries: Total
    unpriced_requests: Total
    batch_size_sum: Total
    input_tokens: Total
    cached_input_tokens: Total
    output_tokens: Total
    gpu_ns: Total
    input_gpu_ns: Total
    output_gpu_ns: Total
    padding_gpu_ns: Total = 0
    wasted_gpu_ns: Total = 0
    cache_hits: Total = 0
    refused_requests: Total = 0
    priced_requests: Total = 0
    priced_input_tokens: Total | None = None
    priced_output_tokens: Total | None = None
    cost_usd: Decimal
    input_cost_usd: Decimal
    output_cost_usd: Decimal

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_version(cls, row: Any) -> Any:
        if not isinstance(row, dict) or row.keys() & set(PRICED):
            return row
        try:
            return {**row, **priced_of_row(row)}
        except (KeyError, TypeError):  # The fields themselves are wrong, and will be named.
            return row

    @computed_field  # type: ignore[prop-decorator]
    @property
    def usd_per_million_input_tokens(self) -> Decimal | None:
        return quotient(self.input_cost_usd, self.priced_input_tokens, 10**6)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def usd_per_million_output_tokens(self) -> Decimal | None:
        return quotient(self.output_cost_usd, self.priced_output_tokens, 10**6)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def usd_per_request(self) -> Decimal | None:
        return quotient(self.cost_usd, self.priced_requests)


Usd = Annotated[
    Decimal,
    PlainSerializer(lambda amount: f"{amount:f}", return_type=str, when_used="json"),
    WithJsonSchema({"format": "decimal", "type": "string"}, mode="serialization"),
]
"""Without an exponent, also where it is 0."""


class CauseTag(Frozen):
    """Why a cost changed: which driver, in which slice, how much of the change.

    ``slice`` maps a dimension to its value; an empty one means everywhere. ``share`` is of the
    whole change; ``usd_per_hour`` is what the slice's driver added; ``confidence`` is in 0..1.
    """

    driver: Driver
    slice: dict[str, str]
    share: float
    usd_per_hour: Usd
    confidence: Annotated[float, Field(ge=0, le=1)]
    lever: str


class Anomaly(Frozen):
    """A window whose spend its model did not expect, with causes, the largest first.

    ``anomaly_id`` is made from what it speaks of, so that a replay repeats it rather than
    making another. ``score`` is the model's, in the unit that ``score_unit`` names. ``region`` is
    empty where its windows are from before regions were told apart.
    """

    anomaly_id: str
    window_start_ms: int
    window_seconds: int
    tenant: str
    model: str
    region: str = ""
    score: float
    score_unit: str
    threshold: float
    expected_usd: Usd
    observed_usd: Usd
    usd_per_hour: Usd
    causes: tuple[CauseTag, ...]

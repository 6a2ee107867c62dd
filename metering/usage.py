"""What a server did: one event per executed batch, with one entry per request in it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError, model_validator

from metering.errors import UnreadableUsage

MAX_COUNT = 2**53
"""Each count, duration and sum over a batch is below it."""
MAX_ROWS = 2**32
"""The rows of a request are fewer."""

# Strict: true, "1" and 1.0 are no counts, though pydantic would make some of them.
NonNegative = Annotated[int, Field(ge=0, lt=MAX_COUNT, strict=True)]
"""Counts and durations; 2**53 ns are 104 days. Sums of a batch have the same bound (``SUMMED``)."""
EpochNs = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
Rows = Annotated[int, Field(ge=1, lt=MAX_ROWS, strict=True)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
IdentitySource = Literal["parameter", "header", "none", "gateway", "refused"]
"""Where the tenant came from. ``gateway``: signed by it; ``refused``: what the client said about
itself, or its silence, was not accepted, and the tenant is ``unattributed``."""
TimingSource = Literal["monotonic", "cuda"]
Operation = Literal[
    "chat",
    "text_completion",
    "embeddings",
    "generate_content",
    "retrieval",
    "create_agent",
    "invoke_agent",
    "invoke_workflow",
    "execute_tool",
    "_OTHER",
]
"""The values that OpenTelemetry lists for ``gen_ai.operation.name``."""
OTHER_OPERATION: Operation = "_OTHER"
"""Of an event whose operation is none of them; no model can be loaded with it."""
Outcome = Literal[
    "ok", "error", "failed", "cancelled", "cache_hit", "rejected", "timed_out", "cancelled_in_queue"
]
"""What became of a request. It was executed and answered (``ok``), answered with an error by its
model (``error``), failed with its whole batch (``failed``), or nobody waited for its answer any
more (``cancelled``). Or it never reached its model: ``cache_hit``, ``rejected``, ``timed_out``
and ``cancelled_in_queue``."""
UNEXECUTED: frozenset[Outcome] = frozenset(
    ("cache_hit", "rejected", "timed_out", "cancelled_in_queue")
)
WASTED: frozenset[Outcome] = frozenset(("error", "failed", "cancelled"))
"""Outcomes whose GPU time was spent on an answer that nobody got."""

SUMMED = ("input_tokens", "output_tokens", "prefill_gpu_ns", "decode_gpu_ns")
"""Fields of requests whose sums over a batch are below ``MAX_COUNT`` too. (GPU time is the
batch's, and the others are parts of these.)"""

UNATTRIBUTED = "unattributed"
LATEST = "latest"
"""The version of a model behind a front that leaves the choice to Triton: its highest one."""


class Frozen(BaseModel):
    """Events don't change; fields that a later version added are kept out, not refused.

    In the schema of what is written every field is required, for every field is written.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", json_schema_serialization_defaults_required=True
    )


class RequestUsage(Frozen):
    """One request's part of a batch. Names follow OpenTelemetry's ``gen_ai.usage.*``.

    ``input_tokens`` includes ``cached_input_tokens``; ``output_tokens`` includes
    ``reasoning_tokens``. ``gpu_ns`` is the request's share of the batch's, told apart into the
    part that its input and the part that its output caused; ``padding_gpu_ns`` is what of it was
    spent on padding, in either. Where the model told its phases, ``prefill_gpu_ns`` and
    ``decode_gpu_ns`` are the request's parts of them.

    ``invalid`` says what is wrong with what was told of the request, with the value found there, ""
    where nothing is. What it names counts as 0 or as not told; the request has its share of the
    batch's time all the same.
    """

    request_id: Annotated[str, Field(max_length=256)]
    tenant: Name
    team: Annotated[str, Field(max_length=256)] = ""
    project: Annotated[str, Field(max_length=256)] = ""
    user: Annotated[str, Field(max_length=256)] = ""
    identity_source: IdentitySource = "none"
    operation: Operation
    status: Outcome = "ok"
    retry_of: Annotated[str, Field(max_length=256)] | None = None
    rows: Rows = 1
    input_tokens: NonNegative = 0
    cached_input_tokens: NonNegative = 0
    output_tokens: NonNegative = 0
    reasoning_tokens: NonNegative = 0
    queue_ns: NonNegative | None = None
    gpu_ns: NonNegative
    input_gpu_ns: NonNegative
    output_gpu_ns: NonNegative
    padding_gpu_ns: NonNegative = 0
    prefill_gpu_ns: NonNegative | None = None
    decode_gpu_ns: NonNegative | None = None
    invalid: Annotated[str, Field(max_length=256)] = ""

    @model_validator(mode="after")
    def _parts_within_wholes(self) -> Self:
        if self.cached_input_tokens > self.input_tokens:
            raise ValueError(
                f"cached_input_tokens={self.cached_input_tokens} exceeds "
                f"input_tokens={self.input_tokens}"
            )
        if self.reasoning_tokens > self.output_tokens:
            raise ValueError(
                f"reasoning_tokens={self.reasoning_tokens} exceeds "
                f"output_tokens={self.output_tokens}"
            )
        if self.input_gpu_ns + self.output_gpu_ns != self.gpu_ns:
            raise ValueError(
                f"input_gpu_ns={self.input_gpu_ns} + output_gpu_ns={self.output_gpu_ns} "
                f"is not gpu_ns={self.gpu_ns}"
            )
        if self.padding_gpu_ns > self.gpu_ns:
            raise ValueError(f"padding_gpu_ns={self.padding_gpu_ns} exceeds gpu_ns={self.gpu_ns}")
        return self


class UsageBatch(Frozen):
    """One executed batch; ``(source, sequence)`` identifies it for ever.

    Or, with ``executed`` false, requests that never reached their model, as its front has seen
    them: they took no GPU time.

    ``source`` names boot, process and model instance; ``sequence`` counts its batches from 0.
    ``batch_size`` is in rows, as Triton counts them: the sum of the requests' ``rows``.
    ``end_epoch_ns`` is the one stamp of the wall clock. ``speedup`` is above 1 only on a
    simulated accelerator that runs faster than what it stands for.

    ``wall_ns`` is from start to end on the monotonic clock. On ``device`` (the accelerator's name
    on its host) other instances may run at the same time: ``overlap_ns`` is what of the wall time
    is theirs, ``None`` where that is not known. With ``timing_source`` "cuda", ``stalled_ns`` is
    what of the rest the device did not work in. ``gpu_ns`` is what remains:
    ``wall_ns = overlap_ns + stalled_ns + gpu_ns``. ``prefill_ns`` and ``decode_ns`` are parts of
    ``gpu_ns``, where the model told them. ``invalid`` says what is wrong with what was told of the
    batch as a whole, and was left out of it.
    """

    source: Name
    sequence: NonNegative
    boot_id: Name
    model: Name
    model_version: Name
    instance: Name
    accelerator: Name
    device: Annotated[str, Field(max_length=256)] = ""
    region: Name
    deployment: Name
    speedup: Annotated[int, Field(ge=1, lt=2**32, strict=True)] = 1
    executed: Annotated[bool, Field(strict=True)] = True
    batch_size: Rows
    wall_ns: NonNegative
    gpu_ns: NonNegative
    overlap_ns: NonNegative | None = None
    stalled_ns: NonNegative = 0
    prefill_ns: NonNegative | None = None
    decode_ns: NonNegative | None = None
    start_monotonic_ns: EpochNs
    end_epoch_ns: EpochNs
    timing_source: TimingSource = "monotonic"
    apportionment_rule: Name
    invalid: Annotated[str, Field(max_length=256)] = ""
    # One request that is wrong says enough: a message can hold millions.
    requests: Annotated[tuple[RequestUsage, ...], Field(min_length=1), FailFast()]

    @property
    def batch_id(self) -> str:
        return f"{self.source}#{self.sequence}"

    @property
    def padding_gpu_ns(self) -> int:
        """What of ``gpu_ns`` was spent on padding."""
        return sum(r.padding_gpu_ns for r in self.requests)

    @model_validator(mode="after")
    def _conserved(self) -> Self:
        rows = sum(r.rows for r in self.requests)
        if rows != self.batch_size:
            raise ValueError(f"batch_size={self.batch_size} but its requests have {rows} rows")
        parts = sum(r.gpu_ns for r in self.requests)
        if parts != self.gpu_ns:
            raise ValueError(f"gpu_ns={self.gpu_ns} but its requests sum to {parts}")
        if self.overlap_ns is not None:
            whole = self.overlap_ns + self.stalled_ns + self.gpu_ns
            if whole != self.wall_ns:
                raise ValueError(
                    f"overlap_ns={self.overlap_ns} + stalled_ns={self.stalled_ns} + "
                    f"gpu_ns={self.gpu_ns} is not wall_ns={self.wall_ns}"
                )
        return self

    @model_validator(mode="after")
    def _phases(self) -> Self:
        told = (self.prefill_ns or 0) + (self.decode_ns or 0)
        if told > self.gpu_ns:
            raise ValueError(
                f"prefill_ns={self.prefill_ns} + decode_ns={self.decode_ns} exceed "
                f"gpu_ns={self.gpu_ns}"
            )
        for name, whole_ns, parts in (
            ("prefill", self.prefill_ns, [r.prefill_gpu_ns for r in self.requests]),
            ("decode", self.decode_ns, [r.decode_gpu_ns for r in self.requests]),
        ):
            if whole_ns is not None and sum(p or 0 for p in parts) != whole_ns:
                raise ValueError(f"{name}_ns={whole_ns} but its requests have {parts}")
        return self

    @model_validator(mode="after")
    def _sums_within_bounds(self) -> Self:
        for name in SUMMED:
            total = sum(getattr(r, name) or 0 for r in self.requests)
            if total >= MAX_COUNT:
                raise ValueError(f"{name} of its requests sum to {total}, not below {MAX_COUNT}")
        return self

    @model_validator(mode="after")
    def _executed_or_not(self) -> Self:
        if not self.executed and self.gpu_ns:
            raise ValueError(f"gpu_ns={self.gpu_ns} though executed=False")
        wrong = [r.status for r in self.requests if (r.status in UNEXECUTED) == self.executed]
        if wrong:
            raise ValueError(f"status={wrong[0]!r} in a batch with executed={self.executed}")
        return self


def parse_usage(raw: bytes) -> UsageBatch:
    """Bytes of a ``usage.batches.v1`` message to the type.

    Raises:
        UnreadableUsage: naming each field that is wrong and the value found there.
    """
    try:
        return UsageBatch.model_validate_json(raw)
    except ValidationError as exc:
        raise unreadable(exc) from exc


def unreadable(exc: ValidationError) -> UnreadableUsage:
    """What pydantic found, as the reason and detail of a dead letter."""
    malformed = exc.errors(include_url=False)[0]["type"] == "json_invalid"
    return UnreadableUsage("malformed" if malformed else "invalid", describe(exc))


def describe(exc: ValidationError) -> str:
    """Each field that is wrong, and the value found there."""
    problems = exc.errors(include_url=False, include_context=False)
    return "; ".join(
        f"{'.'.join(map(str, p['loc'])) or 'message'}: {p['msg']} (got {shown(p['input'])})"
        for p in problems[:5]
    )


def shown(value: object) -> str:
    """A value for people, cut short, whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # more digits than Python writes, or nested too deep
        return f"a {type(value).__name__} that can't be shown"
    return text if len(text) <= 80 else text[:77] + "..."

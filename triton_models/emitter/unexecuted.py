"""A request that never reached its model, as the record that its front logs. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from metering.records import RuleRecipe, Timing, encode_head, encode_record
from metering.usage import Operation, Outcome
from triton_models.emitter.facts import Facts
from triton_models.emitter.identity import Identity
from triton_models.emitter.receipt import UNKNOWN, Receipt
from triton_models.emitter.record import Served, asked_by, took

NO_TIME = RuleRecipe("equal-split")
_MOST_NS = 2**53 - 1
_LONG_ID = 512
"""Characters; more than a name has, so what is cut is refused."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """What a front knows of a request at its arrival; ``arrival_ns`` is monotonic."""

    request_id: str
    identity: Identity
    rows: int
    arrival_ns: int


def head_of(facts: Facts, operation: Operation) -> bytes:
    """The beginning of each record. ``facts`` are the front's own, with the model and the version
    that are behind it."""
    return encode_head(facts.constant(), operation, NO_TIME)


def unexecuted(
    head: bytes,
    sequence: int,
    request: Arrived,
    outcome: Outcome,
    *,
    end_ns: int,
    end_epoch_ns: int,
    receipt: Receipt = UNKNOWN,
) -> bytes:
    """A hit has the tokens of its receipt; what was refused has none.

    ``end_ns`` is monotonic. ``queue_ns`` is how long the request has waited for its outcome; the
    record has no wall time, for nothing was executed.
    """
    answer = Served(
        input_tokens=receipt.input_tokens,
        cached_input_tokens=receipt.cached_input_tokens,
        output_tokens=receipt.output_tokens,
        reasoning_tokens=receipt.reasoning_tokens,
    )
    waited_ns = min(max(end_ns - request.arrival_ns, 0), _MOST_NS)
    return encode_record(
        head,
        sequence,
        Timing(end_ns, end_ns, end_epoch_ns),
        asked_by([request.request_id[:_LONG_ID]], [request.identity]),
        took([request.rows], [answer], status=outcome, queue_ns={0: waited_ns}),
    )

"""What became of a request that got an error, by the words that Triton has for it. Pure.

To a BLS caller of Triton 2.51 every error is INTERNAL, whatever it was; only the text tells them
apart. A request that Triton does not take (its queue is full, its model is not ready, it does not
fit the config) gets a text in front of which BLS puts ``Model NAME - Error when running
inference:``; one whose time ran out in the queue gets ``Request timeout expired`` and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metering.usage import Outcome

TIMED_OUT = "Request timeout expired"
QUEUE_FULL = "Exceeds maximum queue size"
Code = Literal["UNAVAILABLE", "INTERNAL", "INVALID_ARG", "CANCELLED"]
"""Names of ``pb_utils.TritonError``: HTTP's 503, 500, 400 and 499."""
_NOT_TAKEN = "Model {} - Error when running inference: "


@dataclass(frozen=True, slots=True)
class Verdict:
    """``outcome`` is ``None`` for a request that its model has executed, and so has metered.

    ``message`` and ``code`` are what the client would have been told without a front.
    """

    outcome: Outcome | None
    message: str
    code: Code


def verdict_of(target: str, message: str) -> Verdict:
    """Of the error that a BLS call of ``target`` came back with."""
    if message == TIMED_OUT:
        return Verdict("timed_out", message, "UNAVAILABLE")
    not_taken = _NOT_TAKEN.format(target)
    if message.startswith(not_taken):
        reason = message.removeprefix(not_taken)
        busy = reason.endswith((QUEUE_FULL, "is not ready."))
        return Verdict("rejected", reason, "UNAVAILABLE" if busy else "INVALID_ARG")
    return Verdict(None, message, "INTERNAL")


def distinct(message: str, model: str) -> str:
    """A model's own error, so said that a front does not take it for Triton's."""
    if verdict_of(model, message).outcome is None:
        return message
    return f"{model} says: {message}"

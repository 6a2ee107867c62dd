"""A model behind a front: what it takes from the front's stamps, and its receipts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from metering.errors import MeteringError
from triton_models.emitter import receipt
from triton_models.emitter.facts import parameters_of
from triton_models.emitter.flags import Shown
from triton_models.emitter.receipt import Receipt
from triton_models.emitter.record import Served
from triton_models.emitter.stamp import Stamp, taken_off
from triton_models.emitter.verdict import distinct

ABANDONED = Served(error="cancelled before it was executed")
"""For a request that was cancelled while it waited: nobody reads this."""


class Behind:
    """Of one model's config (config.pbtxt as JSON).

    Stamps are believed only with the parameter ``behind_front``; receipts are given where the
    output ``METER_RECEIPT`` is declared.

    Raises:
        MeteringError: ``behind_front`` is neither "true" nor "false".
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        told = parameters_of(config).get("behind_front") or "false"
        if told not in ("true", "false"):
            raise MeteringError(f"behind_front={told!r} is neither 'true' nor 'false'")
        self.believes = told == "true"
        self.gives_receipts = receipt.is_declared(config)
        self._batched = int(config.get("max_batch_size", 0)) > 0
        self._shown = Shown()

    def taken_off(self, parameters: str) -> tuple[str, Stamp | None]:
        return taken_off(parameters) if self.believes else (parameters, None)

    def is_cancelled(self, stamp: Stamp | None) -> bool:
        """Whether the front has seen that nobody waits for the answer any more."""
        return stamp is not None and bool(stamp.flag) and self._shown.cancelled(stamp.flag)

    def outputs(self, served: Served, stamp: Stamp | None, rows: int) -> Mapping[str, NDArray[Any]]:
        """The answer's, and the receipt; without a stamp it has an echo that no front sends."""
        if not self.gives_receipts:
            return served.outputs
        given = Receipt(
            "" if stamp is None else stamp.echo,
            served.input_tokens,
            served.cached_input_tokens,
            served.output_tokens,
            served.reasoning_tokens,
        )
        return {
            **served.outputs,
            receipt.OUTPUT: receipt.as_tensor(given, rows, batched=self._batched),
        }

    def error(self, message: str, model: str) -> str:
        """As the front is to read it: none that it would take for Triton's own."""
        return distinct(message, model) if self.believes else message

    def close(self) -> None:
        self._shown.close()

"""Which requests of a batch nobody waits for any more.

Asking is a round trip to the server: 0.1 ms at the median, 0.8 ms on average, on a machine that is
busy. That is too dear to be done for every request of a short batch, next to nothing for one of
minutes. So it is done as far as it takes no more than 1/500 of the batch's time; a batch that has
time for some of its requests asks those that the last one did not. A cancelled request that was not
asked counts as served: to Triton it is a success all the same.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, get_args

from metering.errors import MeteringError

Asking = Literal["affordable", "always", "never"]
ASK_NS = 1_000_000
AFFORDABLE_PART = 500
_FROM_NS: Mapping[Asking, int] = {
    "affordable": AFFORDABLE_PART * ASK_NS,
    "always": 0,
    "never": sys.maxsize,
}
"""How long a batch takes at least of which one request is asked."""


class Cancellable(Protocol):
    def is_cancelled(self) -> bool: ...


class Watch:
    """Of one model instance. ``always`` asks all, ``never`` none. Of a batch shorter than
    ``from_ns`` none is asked."""

    def __init__(self, asking: Asking) -> None:
        self.from_ns = _FROM_NS[asking]

    def cancelled(
        self, requests: Sequence[Cancellable], sequence: int, wall_ns: int
    ) -> frozenset[int]:
        """Positions in the batch. ``sequence`` is the batch's, so that turns go round."""
        count = self._affordable(len(requests), wall_ns)
        if count == 0:
            return frozenset()
        first = sequence * count % len(requests)
        asked = ((first + n) % len(requests) for n in range(count))
        return frozenset(p for p in asked if requests[p].is_cancelled())

    def _affordable(self, count: int, wall_ns: int) -> int:
        return min(count, wall_ns // self.from_ns) if self.from_ns else count


def watch_of(given: Mapping[str, str]) -> Watch:
    """From the parameter ``ask_cancelled`` in a model's config.

    Raises:
        MeteringError: it has a value that there is not.
    """
    asking = given.get("ask_cancelled") or "affordable"
    if asking not in get_args(Asking):
        raise MeteringError(f"ask_cancelled={asking!r} is none of {get_args(Asking)}")
    return Watch(asking)  # type: ignore[arg-type]  # it was just looked at

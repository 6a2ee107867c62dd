"""What a front tells the model behind it about a request, in one parameter. Pure.

A client can send the same parameter. A front overwrites it; a model that is behind no front does
not read it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from triton_models.emitter.identity import FRONT, Pairs, strip

MAX_QUEUE_NS = 3600 * 10**9
"""Nothing waits for an hour; a stamp that says so is not one of this boot."""
_STAMP = re.compile(
    rf'(^\{{|,)"{FRONT}":"(?P<echo>[0-9a-f-]{{1,64}}) (?P<arrival>[0-9]{{1,19}}) '
    r'(?P<flag>-|[0-9a-f.]{1,64})"\}\Z'
)


@dataclass(frozen=True, slots=True)
class Stamp:
    """``echo`` is a token that no other request has, and comes back in the receipt.

    ``arrival_ns`` is the front's CLOCK_MONOTONIC, which is the host's. ``flag`` says where the
    front shows that nobody waits for the answer any more (``flags``), "" where it can't.
    """

    echo: str
    arrival_ns: int
    flag: str = ""

    def encode(self) -> str:
        return f"{self.echo} {self.arrival_ns} {self.flag or '-'}"

    def queue_ns(self, start_ns: int) -> int | None:
        """How long the request has waited; ``None`` for a stamp in the future or hours old."""
        waited_ns = start_ns - self.arrival_ns
        return waited_ns if 0 <= waited_ns <= MAX_QUEUE_NS else None


def taken_off(parameters: str) -> tuple[str, Stamp | None]:
    """Parameters as the backend has them (a JSON object) without the stamp, and the stamp.

    A front puts its stamp last, so no JSON need be read for it, and what remains is the same for
    all requests of a client. Quotes within a client's own texts are escaped, so no text of its can
    look like a stamp. What can't be read is no stamp.
    """
    found = _STAMP.search(parameters)
    if found is None:
        return parameters, None
    stamp = Stamp(found["echo"], int(found["arrival"]), found["flag"].removeprefix("-"))
    return (parameters[: found.start()] or "{") + "}", stamp


def forwarded(
    parameters: Pairs, stamp: Stamp | None, *, metered: bool
) -> Mapping[str, str | int | bool]:
    """The parameters for the model behind the front.

    A metered one gets who pays, as it came, and the stamp; any other gets none of the meter's.
    The order is that of each name's last occurrence, for of several headers the last counts.

    Raises:
        Unforwardable: BLS of Triton 2.51 takes strings, whole numbers of 64 bits and booleans.
    """
    left: dict[str, object] = {}
    for name, value in parameters:
        left.pop(name, None)
        left[name] = value
    left.pop(FRONT, None)
    if not metered:
        left = strip(left)
    passed: dict[str, str | int | bool] = {}
    for name, value in left.items():
        if isinstance(value, str | bool) or (isinstance(value, int) and abs(value) < 2**63):
            passed[name] = value
        else:
            raise Unforwardable(
                f"parameter {name}={value!r:.80} can't be passed on: "
                "a string, a whole number or a boolean is wanted"
            )
    if metered and stamp is not None:
        passed[FRONT] = stamp.encode()
    return passed


class Unforwardable(Exception):
    """A parameter that a front can't hand on."""

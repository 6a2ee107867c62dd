"""A request's entry in a batch's record (``metering.records``), as the server writes it. Pure.

This runs for every request before it is answered, so it is written for speed: what comes again and
again is made once, and nothing is checked that is checked when the record is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Any

from numpy.typing import NDArray

from metering.apportion import Turn
from metering.usage import Outcome
from triton_models.emitter.identity import Identity, clean


@dataclass(frozen=True, slots=True)
class Served:
    """A model's answer to one request, and what it took, summed over the request's rows.

    With an ``error`` the client gets that message instead of ``outputs``; ``by_client`` says that
    the fault is the client's. An error's tokens are those that were worked on, mostly 0.

    ``row_tokens`` (uncached input and output of each row) and ``turns`` (its part in each step of
    an engine) are what some rules of apportionment go by, where the model can tell.
    """

    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    error: str | None = None
    by_client: bool = False
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    row_tokens: Sequence[tuple[int, int]] = ()
    turns: Sequence[Turn] = ()


def entry_of(
    request_id: str,
    identity: Identity,
    status: Outcome,
    rows: int,
    served: Served,
    *,
    queue_ns: int | None = None,
) -> str:
    """One array of a record's ``requests``.

    Raises:
        TypeError, ValueError: a count is no number.
    """
    s = served
    more = ""
    if s.row_tokens or s.turns or queue_ns is not None:
        more = "," + _more(s, queue_ns)
    return (
        f"[{encode_basestring_ascii(clean(request_id))},{_identity_json(identity)},"
        f'"{status}",{rows:d},{s.input_tokens:d},{s.cached_input_tokens:d},'
        f"{s.output_tokens:d},{s.reasoning_tokens:d}{more}]"
    )


@lru_cache(maxsize=4096)
def _identity_json(i: Identity) -> str:
    return json.dumps([i.tenant, i.team, i.project, i.user, i.retry_of, i.source])


def _more(served: Served, queue_ns: int | None) -> str:
    told: dict[str, Any] = {}
    if served.row_tokens:
        told["row_tokens"] = [(int(i), int(o)) for i, o in served.row_tokens]
    if served.turns:
        told["turns"] = [[int(number) for number in turn] for turn in served.turns]
    if queue_ns is not None:
        told["queue_ns"] = queue_ns
    return json.dumps(told, separators=(",", ":"))

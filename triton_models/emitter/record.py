"""The requests of a batch as the columns of its record (``metering.records``). Pure.

This runs before a batch is answered, so it is written for speed: each column is one pass, what is
the same for all is written once, and nothing is checked that is checked when the record is read.
Who asked is written before the model works: after it the caches are the model's, and every line of
code costs several times as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from metering.apportion import Turn
from metering.records import Asked, Took, encode_asked
from metering.usage import Outcome
from triton_models.emitter.identity import Identity


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


def asked_by(request_ids: Sequence[str], identities: Sequence[Identity]) -> bytes:
    """The part of a record that is known before the batch is executed."""
    payers, payer = _payers(identities)
    return encode_asked(Asked(request_ids, payers, payer))


def took(
    rows: Sequence[int],
    served: Sequence[Served],
    *,
    status: Outcome = "ok",
    others: Mapping[int, Outcome] | None = None,
    queue_ns: Mapping[int, int] | None = None,
) -> Took:
    """``others`` have another outcome than ``status``; ``queue_ns`` is of those that have waited
    for a time that is known; both by position."""
    counts = [
        (s.input_tokens, s.cached_input_tokens, s.output_tokens, s.reasoning_tokens) for s in served
    ]
    inputs, cached, outputs, reasoning = zip(*counts, strict=True) if counts else ((),) * 4
    more = _more(served)
    for position, outcome in (others or {}).items():
        more.setdefault(str(position), {})["status"] = outcome
    for position, waited_ns in (queue_ns or {}).items():
        more.setdefault(str(position), {})["queue_ns"] = waited_ns
    return Took(
        inputs,
        cached if any(cached) else 0,
        outputs,
        reasoning if any(reasoning) else 0,
        1 if rows.count(1) == len(rows) else rows,
        status,
        more,
    )


def _payers(identities: Iterable[Identity]) -> tuple[list[list[str | None]], list[int]]:
    """Each one once. Identities that are equal and not the same may stand there twice."""
    places: dict[int, int] = {}
    payers: list[list[str | None]] = []
    payer = []
    for i in identities:
        place = places.get(id(i))
        if place is None:
            place = places[id(i)] = len(payers)
            payers.append([i.tenant, i.team, i.project, i.user, i.retry_of, i.source])
        payer.append(place)
    return payers, payer


def _more(served: Sequence[Served]) -> dict[str, dict[str, Any]]:
    more: dict[str, dict[str, Any]] = {}
    for position in [p for p, s in enumerate(served) if s.row_tokens or s.turns]:
        s = served[position]
        told = more.setdefault(str(position), {})
        if s.row_tokens:
            told["row_tokens"] = s.row_tokens
        if s.turns:
            told["turns"] = s.turns
    return more

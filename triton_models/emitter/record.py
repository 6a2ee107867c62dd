"""The requests of a batch as the columns of its record (``metering.records``). Pure.

This runs before a batch is answered, so it is written for speed: each column is one pass, what is
the same for all is written once, and nothing is checked that is checked when the record is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from metering.apportion import Turn
from metering.records import Columns
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


def columns_of(
    request_ids: Sequence[str],
    identities: Sequence[Identity],
    rows: Sequence[int],
    served: Sequence[Served],
    *,
    status: Outcome = "ok",
    others: Mapping[int, Outcome] | None = None,
    queue_ns: Mapping[int, int] | None = None,
) -> Columns:
    """``others`` have another outcome than ``status``; ``queue_ns`` is of those that have waited
    for a time that is known; both by position."""
    payers, payer = _payers(identities)
    cached = [s.cached_input_tokens for s in served]
    reasoning = [s.reasoning_tokens for s in served]
    more = _more(served)
    for position, outcome in (others or {}).items():
        more.setdefault(str(position), {})["status"] = outcome
    for position, waited_ns in (queue_ns or {}).items():
        more.setdefault(str(position), {})["queue_ns"] = waited_ns
    return Columns(
        request_ids,
        payers,
        payer,
        [s.input_tokens for s in served],
        cached if any(cached) else 0,
        [s.output_tokens for s in served],
        reasoning if any(reasoning) else 0,
        1 if _all_one(rows) else rows,
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


def _all_one(rows: Sequence[int]) -> bool:
    return rows.count(1) == len(rows)


def _more(served: Sequence[Served]) -> dict[str, dict[str, Any]]:
    more: dict[str, dict[str, Any]] = {}
    for position, s in enumerate(served):
        if s.row_tokens:
            more.setdefault(str(position), {})["row_tokens"] = list(s.row_tokens)
        if s.turns:
            more.setdefault(str(position), {})["turns"] = list(s.turns)
    return more

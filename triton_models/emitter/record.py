"""The requests of a batch as the columns of its record (``metering.records``). Pure.

This runs before a batch is answered, so it is written for speed: each column is one pass, what is
the same for all is written once, and nothing is checked that is checked when the record is read.
Who asked is written before the model works: after it the caches are the model's, and every line of
code costs several times as much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metering.apportion import Turn
from metering.compiled_server import recorder
from metering.names import mended
from metering.records import Asked, Took, encode_asked, join_asked
from metering.usage import UNATTRIBUTED, Outcome
from triton_models.emitter.identity import Identity, payer_of_text


class Served(NamedTuple):
    """A model's answer to one request, and what it took, summed over the request's rows.

    With an ``error`` the client gets that message instead of ``outputs``; ``by_client`` says that
    the fault is the client's. An error's tokens are those that were worked on, mostly 0.

    ``row_tokens`` (uncached input and output of each row) and ``turns`` (its part in each step of
    an engine) are what some rules of apportionment go by, where the model can tell.
    """

    outputs: Mapping[str, NDArray[Any]] = MappingProxyType({})
    error: str | None = None
    by_client: bool = False
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    row_tokens: Sequence[tuple[int, int]] = ()
    turns: Sequence[Turn] = ()


def recorder_of(head: bytes, *, batched: bool) -> recorder.Recorder | None:
    """What writes the record of a usual batch at once; ``None`` where it is not compiled."""
    if recorder is None:
        return None
    return recorder.Recorder(head, payer_of_text, UNATTRIBUTED, Served, batched)


def asked_by(request_ids: Sequence[str], identities: Sequence[Identity]) -> bytes:
    """The part of a record that is known before the batch is executed."""
    payers = list(dict.fromkeys(identities))
    places = {identity: n for n, identity in enumerate(payers)}
    payer = [places[i] for i in identities]
    try:
        return encode_asked(Asked(request_ids, payers, payer))
    except ValueError:  # Half of a surrogate pair is no UTF-8.
        return encode_asked(Asked([mended(i) for i in request_ids], payers, payer))


def asked_by_texts(request_ids: Sequence[str], texts: Sequence[str]) -> bytes:
    """:func:`asked_by` those whose parameters, as the backend has them, are ``texts``. Requests
    with the same text have the same payer, which is looked at once."""
    places = {text: n for n, text in enumerate(dict.fromkeys(texts))}
    payers, payer = [payer_of_text(text) for text in places], [places[text] for text in texts]
    try:
        return join_asked(request_ids, payers, payer)
    except ValueError:  # Half of a surrogate pair is no UTF-8.
        return join_asked([mended(i) for i in request_ids], payers, payer)


def rows_in(outputs: Mapping[str, NDArray[Any]]) -> int:
    """The first dimension of the first output; 0 where it has none, or is no array."""
    shape = getattr(next(iter(outputs.values()), None), "shape", ())
    rows = shape[0] if isinstance(shape, tuple) and shape else 0
    return rows if type(rows) is int and rows > 0 else 0


def took(
    rows: Sequence[int],
    served: Sequence[Served],
    *,
    status: Outcome = "ok",
    others: Mapping[int, Outcome] | None = None,
    queue_ns: Mapping[int, int] | None = None,
) -> Took:
    """``others`` have another outcome than ``status``; ``queue_ns`` is of those that have waited
    for a time that is known; both by position. An ``ok`` with an error is an ``error``."""
    columns = zip(*served, strict=True) if served else ((),) * len(Served._fields)
    _, errors, _, inputs, cached, outputs, reasoning, row_tokens, turns = columns
    more: dict[str, dict[str, Any]] = {}
    for name, told in (("row_tokens", row_tokens), ("turns", turns)):
        if set(map(type, told)) != {tuple} or any(told):
            _tell(more, name, {p: _listed(own) for p, own in enumerate(told) if _is_told(own)})
    if status == "ok" and any(e is not None for e in errors):
        _tell(more, "status", {p: "error" for p, e in enumerate(errors) if e is not None})
    if others:
        _tell(more, "status", others)
    if queue_ns:
        _tell(more, "queue_ns", queue_ns)
    return Took(
        inputs,
        0 if _are_zero(cached) else cached,
        outputs,
        0 if _are_zero(reasoning) else reasoning,
        1 if rows.count(1) == len(rows) else rows,
        status,
        more,
    )


def _are_zero(column: Sequence[Any]) -> bool:
    return set(map(type, column)) <= {int} and not any(column)


def _is_told(told: Any) -> bool:
    """What has no length is something else than it should be, and is told."""
    try:
        return len(told) > 0
    except TypeError:
        return told is not None


def _listed(told: Any) -> Any:
    return told.tolist() if isinstance(told, np.ndarray) else told


def _tell(more: dict[str, dict[str, Any]], name: str, by_position: Mapping[int, object]) -> None:
    for position, value in by_position.items():
        more.setdefault(str(position), {})[name] = value

"""Who pays for a request: from the parameters that came with it to fields that fit an event.

Triton puts a request's forwarded headers behind the parameters of its body, in one list: a client
can name itself in the body (``tenant``), a gateway in a header (``x-meter-tenant``). Whatever
came, an identity can be made of it: a name is kept exactly as it is, or refused, so that no two
become one; and none costs a request. Who may say who pays is the subject of ``gateway``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

from metering.names import clean, fault_of
from metering.records import encode_payer
from metering.usage import UNATTRIBUTED, IdentitySource

FIELDS = ("tenant", "team", "project", "user", "retry_of")
HEADER_PREFIX = "x-meter-"
FRONT = "meter_front"
"""The parameter in which a front stamps a request (``stamp``)."""
LONG_TEXT = 1024
"""Characters; longer parameters are not kept in memory."""
Pairs: TypeAlias = Sequence[tuple[str, object]]
"""Parameters as they came: in order, a name perhaps several times."""
Refusal = Literal[
    "unproven", "client_set", "malformed_token", "forged_token", "expired_token", "used_token"
]
_PARAMETER: IdentitySource = "parameter"
_HEADER: IdentitySource = "header"
_NONE: IdentitySource = "none"
_REFUSED: IdentitySource = "refused"


class Identity(NamedTuple):
    """As a record has it. ``source`` says where the tenant came from; each other field stands for
    itself. ``invalid`` says of which field a name was given that can't be one: it counts as absent,
    and a tenant's is ``refused``.

    ``refusal`` says what a trusted gateway's server does not accept in the request; it is always
    ``None`` where no gateway is trusted.
    """

    tenant: str
    team: str
    project: str
    user: str
    retry_of: str | None
    source: IdentitySource
    refusal: Refusal | None = None
    invalid: str = ""


def pairs_of(text: str) -> Pairs:
    """A request's parameters, from the JSON object that the backend has them in.

    No name is dropped: a header stands behind a body's parameter of the same name, and whoever
    reads an object into a ``dict`` no longer sees who said what. Unreadable is none.
    """
    try:
        found = json.loads(text or "{}", object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return ()
    return found if isinstance(found, tuple) else ()


def header_field(name: str) -> str | None:
    """``retry_of`` for ``X-Meter-Retry-Of``, in any case; ``None`` if it is no header of ours."""
    lower = name.lower()
    if not lower.startswith(HEADER_PREFIX):
        return None
    return lower.removeprefix(HEADER_PREFIX).replace("-", "_")


def identity_of(parameters: Mapping[str, object] | Pairs) -> Identity:
    """The body's parameter goes before the header of the same field; no tenant is a tenant too.

    Of several headers of one field, however spelled, the last counts: headers come after the
    body, so a body's parameter that is named like a header does not hide a real one.
    """
    pairs = list(parameters.items()) if isinstance(parameters, Mapping) else parameters
    body = dict(pairs)
    headers = {header_field(name): value for name, value in pairs}
    given = {name: body[name] if is_given(body.get(name)) else headers.get(name) for name in FIELDS}
    return named(given, _PARAMETER if is_given(body.get("tenant")) else _HEADER)


def named(given: Mapping[str, object], source: IdentitySource) -> Identity:
    """Who is named by values of ``FIELDS``: exactly, or not at all."""
    names = {name: clean(given.get(name)) for name in FIELDS}
    faults = [f"{name}: {fault}" for name in FIELDS if (fault := fault_of(given.get(name)))]
    if names["tenant"] == UNATTRIBUTED:
        faults.append(f"tenant: {UNATTRIBUTED!r} is who names no tenant")
        source = _REFUSED
    elif not names["tenant"]:
        source = _REFUSED if is_given(given.get("tenant")) else _NONE
    return Identity(
        names["tenant"] or UNATTRIBUTED,
        names["team"],
        names["project"],
        names["user"],
        names["retry_of"] or None,
        source,
        None,
        "; ".join(faults),
    )


def is_given(value: object) -> bool:
    return value is not None and value != ""


def payer_of_text(text: str) -> bytes:
    """Who pays, as a record has it, by parameters as the backend has them. The same ones come again
    and again, and are read once."""
    return _payer(text) if len(text) <= LONG_TEXT else encode_payer(identity_of(pairs_of(text)))


@lru_cache(maxsize=4096)
def _payer(text: str) -> bytes:
    return encode_payer(identity_of(pairs_of(text)))


def is_ours(name: str) -> bool:
    """Whether a parameter is the meter's: an identity field, a front's stamp, any ``x-meter-*``."""
    return name.lower() in (*FIELDS, FRONT) or header_field(name) is not None


def strip(parameters: Mapping[str, object]) -> dict[str, object]:
    """What is left for a backend that does not know the meter's parameters, such as vLLM's."""
    return {name: value for name, value in parameters.items() if not is_ours(name)}

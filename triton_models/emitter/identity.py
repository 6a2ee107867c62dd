"""Who pays for a request: from the parameters that came with it to fields that fit an event.

Triton merges forwarded headers into a request's parameters, so that a client can name itself in
the body (``tenant``) and a gateway in a header (``x-meter-tenant``). Whatever came, an identity
can be made of it: what does not fit is mended or counts as absent, and never costs a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metering.usage import UNATTRIBUTED, IdentitySource

MAX_LENGTH = 256
HEADER_PREFIX = "x-meter-"
_REPLACEMENT = "\ufffd"
_PARAMETER: IdentitySource = "parameter"
_HEADER: IdentitySource = "header"
_NONE: IdentitySource = "none"


@dataclass(frozen=True, slots=True)
class Identity:
    """``source`` says where the tenant came from; each other field stands for itself."""

    tenant: str
    team: str
    project: str
    user: str
    retry_of: str | None
    source: IdentitySource


def identity_of(parameters: Mapping[str, object]) -> Identity:
    """The body's parameter goes before the header of the same field; no tenant is a tenant too."""
    headers = {
        name.lower().removeprefix(HEADER_PREFIX).replace("-", "_"): value
        for name, value in parameters.items()
        if name.lower().startswith(HEADER_PREFIX)
    }

    def field(name: str) -> str:
        return clean(parameters.get(name)) or clean(headers.get(name))

    tenant, source = UNATTRIBUTED, _NONE
    if given := clean(parameters.get("tenant")):
        tenant, source = given, _PARAMETER
    elif given := clean(headers.get("tenant")):
        tenant, source = given, _HEADER
    return Identity(
        tenant, field("team"), field("project"), field("user"), field("retry_of") or None, source
    )


def clean(value: object) -> str:
    """A name that an event can hold: printable, stripped, at most 256 characters; "" is absent.

    Whole numbers are taken by their digits; a character that can't be printed (a control, half of
    a surrogate pair) becomes U+FFFD, so that it is seen and still encodes as UTF-8.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = format(value, "d") if abs(value) < 10**MAX_LENGTH else ""
    if not isinstance(value, str):
        return ""
    value = value[: 2 * MAX_LENGTH].strip()[:MAX_LENGTH].rstrip()
    if value.isprintable():
        return value
    return "".join(c if c.isprintable() else _REPLACEMENT for c in value)

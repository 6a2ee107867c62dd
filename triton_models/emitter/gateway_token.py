"""A gateway's word on who pays: a JWT (RFC 7519) under HMAC-SHA256 (``HS256``, RFC 7515).

Its claims are ``tenant``, ``team``, ``project``, ``user`` and ``retry_of``, each a string or
absent, and it must have ``iat`` and ``jti``; ``exp`` and ``nbf`` are heeded. Time is passed in.
"""

from __future__ import annotations

import base64
import hmac
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from metering.errors import MeteringError
from triton_models.emitter.identity import Refusal

MAX_LENGTH = 4096
LEEWAY_S = 30
"""How far a gateway's clock may be ahead of the server's."""
_COMPACT = re.compile(r"([\w-]+\.[\w-]+)\.([\w-]+)", re.ASCII)
_HEADER = {"alg": "HS256", "typ": "JWT"}


class Untrusted(MeteringError):
    """A token that says nothing; the message never has any part of it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


def sign(key: bytes, claims: Mapping[str, object]) -> str:
    """A token, for gateways in Python and for a front model that calls metered ones."""
    signed = f"{_encode(_HEADER)}.{_encode(claims)}"
    return f"{signed}.{_base64(_mac(key, signed))}"


def verify(
    token: object, keys: Sequence[bytes], *, now_s: float, max_age_s: int
) -> tuple[dict[str, object], bytes]:
    """The claims of a token that one of ``keys`` has signed, and its MAC.

    Nothing of an unsigned token is parsed, and the algorithm is not the token's to choose.

    Raises:
        Untrusted: it is no token, its signature or its time is wrong, or it has no ``jti``.
    """
    if not isinstance(token, str) or len(token) > MAX_LENGTH:
        raise Untrusted("malformed_token")
    parts = _COMPACT.fullmatch(token.strip())
    if parts is None:
        raise Untrusted("malformed_token")
    signed, given = parts[1], _decode(parts[2])
    # Every key is tried, and compared in constant time: how long it takes tells nothing.
    matching = [mac for key in keys if hmac.compare_digest(mac := _mac(key, signed), given)]
    if not matching:
        raise Untrusted("forged_token")
    header, _, body = signed.partition(".")
    claims = _object(body)
    if not _is_usual(header) or not _is_id(claims.get("jti")):
        raise Untrusted("malformed_token")
    issued_s = _date(claims.get("iat"))
    not_before_s = max(issued_s, _date(claims.get("nbf", issued_s)))
    expires_s = min(issued_s + max_age_s, _date(claims.get("exp", math.inf)))
    if not not_before_s - LEEWAY_S <= now_s <= expires_s:
        raise Untrusted("expired_token")
    return claims, matching[0]


def _object(part: str) -> dict[str, object]:
    try:
        found = json.loads(_decode(part).decode())
    except (ValueError, RecursionError):
        raise Untrusted("malformed_token") from None
    if not isinstance(found, dict):
        raise Untrusted("malformed_token")
    return found


@lru_cache(maxsize=8)  # A gateway's tokens have one and the same header.
def _is_usual(part: str) -> bool:
    header = _object(part)
    return header.get("alg") == _HEADER["alg"] and "crit" not in header


def _is_id(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip() != ""


def _date(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124  # NaN
        raise Untrusted("malformed_token")
    return value


def _mac(key: bytes, signed: str) -> bytes:
    return hmac.digest(key, signed.encode(), "sha256")


def _encode(value: object) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""

"""What a request asks for, read once from its URL and headers."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl

from sinks.embedded.errors import QueryError

_SETTING = re.compile(r"[A-Za-z_][\w.]*", re.ASCII)
_RESERVED = frozenset(
    (
        *("query", "database", "default_format", "query_id", "user", "password", "quota_key"),
        *("session_id", "session_timeout", "session_check", "close_session"),
        *("compress", "decompress", "buffer_size", "wait_end_of_query"),
        *("stacktrace", "client_protocol_version"),
        *("http_wait_end_of_query", "http_response_buffer_size"),
    )
)
_EXTERNAL_SUFFIXES = ("_format", "_types", "_structure")
_MAX_SESSION_S = 3600
_MAX_QUERY_ID = 1024
RESPONSE_BUFFER_BYTES = 1 << 20
# Held back where the request says nothing: until then an error is still the status of the answer.


def url_fields(raw_path: str) -> dict[str, str]:
    """The URL's parameters, the first of each name; bytes that are not UTF-8 become surrogates."""
    fields: dict[str, str] = {}
    query = raw_path.partition("?")[2].partition("#")[0]
    for name, value in parse_qsl(query, keep_blank_values=True, errors="surrogateescape"):
        fields.setdefault(name, value)
    return fields


@dataclass(frozen=True, slots=True)
class Credentials:
    user: str
    password: str

    @classmethod
    def of(cls, url: Mapping[str, str], headers: Mapping[str, str]) -> Self:
        """From the X-ClickHouse headers, Basic authorization or the URL; never a mixture.

        Raises:
            QueryError: AUTHENTICATION_FAILED, for a mixture or another scheme.
        """
        by_header = "X-ClickHouse-User" in headers or "X-ClickHouse-Key" in headers
        by_url = "user" in url or "password" in url
        authorization = headers.get("Authorization")
        if (by_header, by_url, authorization is not None).count(True) > 1:
            raise _denied("it is not allowed to use several ways of authentication simultaneously")
        if authorization is not None:
            return cls(*_basic(authorization))
        if by_header:
            return cls(
                headers.get("X-ClickHouse-User", "default"), headers.get("X-ClickHouse-Key", "")
            )
        return cls(url.get("user", "default"), url.get("password", ""))

    def check(self, known: Self) -> None:
        """Raises QueryError where these are not the known ones, in constant time."""
        user = hmac.compare_digest(_bytes(self.user), _bytes(known.user))
        password = hmac.compare_digest(_bytes(self.password), _bytes(known.password))
        if not (user and password):
            raise QueryError.of(
                "AUTHENTICATION_FAILED",
                f"{self.user}: Authentication failed: password is incorrect, or there is no user "
                "with such name.",
            )


@dataclass(frozen=True, slots=True)
class SessionAsk:
    session_id: str
    timeout_s: int
    must_exist: bool
    close: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """Everything but the query and its data. ``settings`` are the engine's, as text.

    ``hold_bytes`` of the result are held back before the answer begins; None for all of it.
    """

    query: str
    database: str | None
    default_format: str
    query_id: str | None
    session: SessionAsk | None
    hold_bytes: int | None
    protocol_version: int
    compress: bool
    decompress: bool
    params: dict[str, str]
    settings: dict[str, str]

    @classmethod
    def of(cls, url: Mapping[str, str], headers: Mapping[str, str], multipart: bool) -> Self:
        """Raises QueryError for what ClickHouse refuses, and for what is not supported here."""
        if "role" in url:
            raise QueryError.of("UNKNOWN_ROLE", f"There is no role `{url['role']}`")
        settings = {
            name: value
            for name, value in url.items()
            if name
            and name not in _RESERVED
            and not name.startswith("param_")
            and not (multipart and name.endswith(_EXTERNAL_SUFFIXES))
        }
        for name in settings:
            if not _SETTING.fullmatch(name):
                raise QueryError.of("UNKNOWN_SETTING", f"Unknown setting '{name}'")
        return cls(
            query=url.get("query", ""),
            database=headers.get("X-ClickHouse-Database") or url.get("database") or None,
            default_format=headers.get("X-ClickHouse-Format")
            or url.get("default_format")
            or "TabSeparated",
            query_id=_query_id(url.get("query_id") or headers.get("X-ClickHouse-Query-Id") or ""),
            session=_session(url),
            hold_bytes=_hold_bytes(url),
            protocol_version=_number(url, "client_protocol_version", 0),
            compress=flag(url, "compress"),
            decompress=flag(url, "decompress"),
            params={k.removeprefix("param_"): v for k, v in url.items() if k.startswith("param_")},
            settings=settings,
        )


def _hold_bytes(url: Mapping[str, str]) -> int | None:
    """``buffer_size=0`` and ``wait_end_of_query=0`` say that the result is sent as it comes."""
    waits = ("wait_end_of_query", "http_wait_end_of_query")
    if any(flag(url, name) for name in waits):
        return None
    for name in ("buffer_size", "http_response_buffer_size"):
        if name in url:
            return _number(url, name, 0)
    return 0 if any(name in url for name in waits) else RESPONSE_BUFFER_BYTES


def _query_id(text: str) -> str | None:
    """None where there is none; it comes back in a header, so it has to fit into one."""
    if len(text) > _MAX_QUERY_ID or not text.isascii() or not (text.isprintable() or not text):
        raise QueryError.of(
            "BAD_ARGUMENTS",
            f"A query id is up to {_MAX_QUERY_ID} printable ASCII characters: got {text[:100]!r}",
        )
    return text or None


def _session(url: Mapping[str, str]) -> SessionAsk | None:
    if not url.get("session_id"):
        return None
    timeout = url.get("session_timeout", "60")
    if not timeout.isdecimal() or int(timeout) > _MAX_SESSION_S:
        raise QueryError.of(
            "INVALID_SESSION_TIMEOUT",
            f"Invalid session timeout: '{timeout}'; it is a number of seconds up to "
            f"{_MAX_SESSION_S}",
        )
    return SessionAsk(
        url["session_id"], int(timeout), flag(url, "session_check"), flag(url, "close_session")
    )


def _basic(authorization: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise _denied(f"'{scheme}' HTTP Authorization scheme is not supported")
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as exc:
        raise _denied("the Basic credentials can't be decoded") from exc
    return user, password


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _denied(why: str) -> QueryError:
    return QueryError.of("AUTHENTICATION_FAILED", f"Invalid authentication: {why}")


def flag(url: Mapping[str, str], name: str) -> bool:
    return url.get(name, "").lower() in ("1", "true")


def _number(url: Mapping[str, str], name: str, default: int) -> int:
    value = url.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdecimal()):
        raise QueryError.of("BAD_ARGUMENTS", f"{name}={value} is not a number")
    return int(value)

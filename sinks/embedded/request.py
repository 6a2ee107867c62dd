"""What a request asks for, read once from its URL and headers."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from sinks.embedded.errors import QueryError

_SETTING = re.compile(r"[A-Za-z_][\w.]*", re.ASCII)
_RESERVED = frozenset(
    (
        *("query", "database", "default_format", "query_id", "user", "password", "quota_key"),
        *("session_id", "session_timeout", "session_check", "close_session"),
        *("compress", "decompress", "buffer_size", "wait_end_of_query"),
        *("stacktrace", "client_protocol_version"),
    )
)
_EXTERNAL_SUFFIXES = ("_format", "_types", "_structure")
_MAX_SESSION_S = 3600
RESPONSE_BUFFER_BYTES = 1 << 20


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
        user = hmac.compare_digest(self.user.encode(), known.user.encode())
        password = hmac.compare_digest(self.password.encode(), known.password.encode())
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
    """Everything but the query and its data. ``settings`` are the engine's, as text."""

    query: str
    database: str | None
    default_format: str
    query_id: str | None
    session: SessionAsk | None
    wait_end_of_query: bool
    buffer_bytes: int
    params: dict[str, str]
    settings: dict[str, str]

    @classmethod
    def of(cls, url: Mapping[str, str], headers: Mapping[str, str], multipart: bool) -> Self:
        """Raises QueryError for what ClickHouse refuses, and for what is not supported here."""
        for flag in ("compress", "decompress"):
            if _flag(url, flag):
                raise QueryError.of(
                    "NOT_IMPLEMENTED",
                    f"{flag}=1 (ClickHouse's own block compression) is not supported by the "
                    "embedded engine: use Accept-Encoding or Content-Encoding",
                )
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
            query_id=url.get("query_id") or headers.get("X-ClickHouse-Query-Id") or None,
            session=_session(url),
            wait_end_of_query=_flag(url, "wait_end_of_query")
            or _flag(url, "http_wait_end_of_query"),
            buffer_bytes=max(_number(url, "buffer_size", 0), RESPONSE_BUFFER_BYTES),
            params={k.removeprefix("param_"): v for k, v in url.items() if k.startswith("param_")},
            settings=settings,
        )


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
        url["session_id"], int(timeout), _flag(url, "session_check"), _flag(url, "close_session")
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


def _denied(why: str) -> QueryError:
    return QueryError.of("AUTHENTICATION_FAILED", f"Invalid authentication: {why}")


def _flag(url: Mapping[str, str], name: str) -> bool:
    return url.get(name, "").lower() in ("1", "true")


def _number(url: Mapping[str, str], name: str, default: int) -> int:
    value = url.get(name)
    if value is None:
        return default
    if not value.isdecimal():
        raise QueryError.of("BAD_ARGUMENTS", f"{name}={value} is not a number of bytes")
    return int(value)

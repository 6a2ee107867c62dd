"""One way to connect, and one error for every way in which that can fail."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from metering.errors import MeteringError, SinkUnavailable
from sinks.clickhouse.cluster import SETTINGS
from sinks.clickhouse.reasons import reason_of

__all__ = ["ClickHouseError", "ClickHouseTarget", "Client", "connect"]

_BEFORE_PATH = re.compile(r"(?:[^/?#]*//)?[^/?#]*")


@dataclass(frozen=True, slots=True)
class ClickHouseTarget:
    """Where ClickHouse is and as whom to speak to it. The password never shows in a ``repr``, nor
    does the URL, which might have one."""

    url: str = field(repr=False)
    user: str = "default"
    password: str = field(default="", repr=False)
    database: str = "meter"
    cluster: str = ""
    """As ``remote_servers`` names it; empty for a server by itself."""

    @property
    def address(self) -> str:
        """The URL for logs and errors: without a path, and hidden where it may have a password."""
        found = _BEFORE_PATH.match(self.url)
        return found[0] if found is not None and "@" not in self.url else "(hidden)"

    def endpoint(self) -> tuple[str, str, int]:
        """Scheme, host and port of the URL.

        Raises:
            MeteringError: the URL is not ``http(s)://HOST[:PORT]``.
        """
        parts = urlsplit(self.url)
        if (
            "@" in self.url or parts.query or parts.fragment
        ):  # not shown: a password may be in it, and would be in every error
            raise MeteringError(
                "the ClickHouse URL has credentials: set METER_CLICKHOUSE_USER and "
                "METER_CLICKHOUSE_PASSWORD instead"
            )
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise MeteringError(f"ClickHouse URL {self.address!r}: want http(s)://HOST[:PORT]")
        return parts.scheme, parts.hostname, port or (8443 if parts.scheme == "https" else 8123)


def connect(target: ClickHouseTarget, *, database: str | None = None, **options: Any) -> Client:
    """A client over HTTP(S). Retries of the driver are off: who writes decides about retries. What
    stays on this machine is not compressed: there is no network to spare.

    Raises:
        SinkUnavailable: nobody answers there, or the credentials are wrong.
        MeteringError: the URL is not ``http(s)://HOST[:PORT]``.
    """
    scheme, host, port = target.endpoint()
    options.setdefault("compress", not _is_loopback(host))
    try:
        return clickhouse_connect.get_client(
            host=host,
            port=port,
            secure=scheme == "https",
            username=target.user,
            password=target.password,
            database=target.database if database is None else database,
            autogenerate_session_id=False,
            settings=dict(SETTINGS) if target.cluster else None,
            **options,
        )
    except (ClickHouseError, OSError) as exc:
        raise SinkUnavailable(f"ClickHouse at {target.address}", 0, reason_of(exc)) from exc


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False

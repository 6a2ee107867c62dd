"""Errors show neither a password nor a token in ClickHouse's address, however it is written."""

from __future__ import annotations

import pytest

from metering.errors import MeteringError
from sinks.clickhouse.connection import ClickHouseTarget, connect

SECRET = "hunter2"  # noqa: S105  # a password of nobody


@pytest.mark.parametrize(
    "url",
    [
        f"http://me:{SECRET}@127.0.0.1:1",
        f"me:{SECRET}@127.0.0.1:1",
        f"http:me:{SECRET}@h",
        f"http://me:a/{SECRET}@h",
        f"http://127.0.0.1:1/{SECRET}",
        f"http://127.0.0.1:99999/{SECRET}",
        f"http://127.0.0.1:1/?token={SECRET}",
        f"127.0.0.1:1/{SECRET}",
    ],
)
def test_an_address_that_can_not_be_used_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(MeteringError) as caught:
        connect(ClickHouseTarget(url))
    assert SECRET not in str(caught.value)


def test_an_address_without_secrets_is_shown() -> None:
    with pytest.raises(MeteringError, match="'localhost:8123': want http"):
        connect(ClickHouseTarget("localhost:8123"))

"""Rows of windows that were stored before the sums of priced requests were, read after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sinks.clickhouse import schema
from sinks.clickhouse.connection import ClickHouseTarget
from sinks.clickhouse.queries import ClickHouseReader
from sinks.clickhouse.schema import migrate, migrations

if TYPE_CHECKING:
    from conftest import ClickHouse


OLD_ROWS = """
INSERT INTO {}.cost_window_rows
    (window_start, window_seconds, tenant, requests, unpriced_requests, input_tokens, output_tokens,
    cost_usd, input_cost_usd, output_cost_usd,
    usd_per_million_input_tokens, usd_per_million_output_tokens, usd_per_request)
VALUES
    (0, 10, 'mixed', 2, 1, 200, 20, 3, 1, 2, 5000, 100000, 3),
    (0, 10, 'no output', 1, 0, 100, 0, 3, 1, 2, 10000, NULL, 3),
    (0, 10, 'priced', 2, 0, 200, 20, 3, 1, 2, 5000, 100000, 1.5),
    (0, 10, 'refused', 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL),
    (0, 10, 'unpriced', 2, 2, 200, 20, 0, 0, 0, 0, 0, NULL)
"""


@pytest.fixture
def target(
    target: ClickHouseTarget, address: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> ClickHouseTarget:
    """A database of the version before, with rows in it."""
    with monkeypatch.context() as before:
        before.setattr(schema, "migrations", lambda: [m for m in migrations() if m < "0007"])
        migrate(target)
    address.value(OLD_ROWS.format(target.database))
    return target


def test_rows_from_before_have_the_priced_sums_that_are_known_and_no_other(
    target: ClickHouseTarget,
) -> None:
    migrate(target)
    reader = ClickHouseReader(target)
    rows = reader.rows(
        "SELECT tenant, priced_requests, priced_input_tokens, priced_output_tokens, "
        "toString(usd_per_million_input_tokens), toString(usd_per_million_output_tokens), "
        "toString(usd_per_request) FROM cost_windows ORDER BY tenant"
    )
    reader.close()
    assert rows == [
        ("mixed", 1, None, None, None, None, "3"),
        ("no output", 1, 100, 0, "10000", None, "3"),
        ("priced", 2, 200, 20, "5000", "100000", "1.5"),
        ("refused", 0, 0, 0, None, None, None),
        ("unpriced", 0, 0, 0, None, None, None),
    ]


def test_tokens_per_second_do_not_wrap_round(target: ClickHouseTarget, address: ClickHouse) -> None:
    """2^53 tokens times 10^9 leave 64 bits."""
    migrate(target)
    most = 2**53 - 1
    address.value(
        f"INSERT INTO {target.database}.cost_window_rows (window_seconds, tenant, output_tokens, "
        f"gpu_ns) VALUES (60, 'huge', {most}, 1000000000)"
    )
    address.value(
        f"INSERT INTO {target.database}.cost_request_lines (tenant, output_tokens, batch_wall_ns, "
        f"decode_gpu_ns) VALUES ('huge', {most}, 1000000000, 1000000000)"
    )
    reader = ClickHouseReader(target)
    windows = reader.rows(
        "SELECT output_tokens_per_gpu_second FROM cost_windows WHERE tenant = 'huge'"
    )
    lines = reader.rows(
        "SELECT output_tokens_per_second, output_tokens_per_decode_gpu_second FROM cost_requests"
    )
    reader.close()
    assert windows == [(most,)]
    assert lines == [(most, most)]

"""Schema, writer and reader, against every implementation of ClickHouse's interface there is."""

from __future__ import annotations

import json
import socket
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from metering.costs import Anomaly, CauseTag, CostLine, WindowRow
from metering.errors import MeteringError, QueryFailed, SinkUnavailable
from metering.lines import CostLines
from metering.money import atto_usd, quotient, usd
from metering.prices import PriceBook, parse_price_book
from metering.pricing import price_batch
from metering.usage import UsageBatch
from metering.window_rows import WindowRows
from sinks.clickhouse.connection import ClickHouseTarget
from sinks.clickhouse.queries import ClickHouseReader, Stored, Unpriced
from sinks.clickhouse.schema import migrate
from sinks.clickhouse.writer import ClickHouseWriter

MakeBatch = Callable[..., UsageBatch]
NOON_NS = 1_780_000_000 * 10**9
ATTO = Decimal("1e-18")
MOST = Decimal("12345678901234567890.123456789012345678")
"""As many digits as a Decimal(38, 18) has."""
BOOK = parse_price_book(
    '[[gpu_hour]]\nid = "p"\naccelerator = "cpu"\nregion = "*"\n'
    'usd_per_gpu_hour = "987654.123456789"\neffective_from = 2020-01-01T00:00:00Z\n',
    "book",
)


@pytest.fixture
def store(target: ClickHouseTarget) -> Iterator[tuple[ClickHouseWriter, ClickHouseReader]]:
    migrate(target)
    writer, reader = ClickHouseWriter(target), ClickHouseReader(target)
    yield writer, reader
    reader.close()
    writer.close()


Store = tuple[ClickHouseWriter, ClickHouseReader]


def window(**changes: Any) -> WindowRow:
    values = {
        "window_start_ms": 1_780_000_000_000,
        "window_seconds": 10,
        "tenant": "acme",
        "model": "tiny",
        "final": False,
        "counted_to": 10,
        "requests": 4,
        "retries": 1,
        "unpriced_requests": 1,
        "batch_size_sum": 9,
        "input_tokens": 3,
        "cached_input_tokens": 2,
        "output_tokens": 7,
        "gpu_ns": 2**60,
        "input_gpu_ns": 2**59,
        "output_gpu_ns": 2**59,
        "cost_usd": Decimal(10) + ATTO,
        "input_cost_usd": Decimal(1),
        "output_cost_usd": Decimal(9) + ATTO,
        **changes,
    }
    return WindowRow(**values)


def anomaly(**changes: Any) -> Anomaly:
    values = {
        "anomaly_id": "6f1ed002",
        "window_start_ms": 1_780_000_000_000,
        "window_seconds": 10,
        "tenant": "acme",
        "model": "tiny",
        "score": 17.5,
        "score_unit": "standard deviations",
        "threshold": 5.000000000000001,
        "expected_usd": ATTO,
        "observed_usd": MOST,
        "usd_per_hour": -MOST,
        "causes": (
            CauseTag(
                driver="gpu_time_per_token",
                slice={"tenant": "a'cme", "model": "größer"},
                share=0.1 + 0.2,
                usd_per_hour=MOST,
                confidence=0.92,
                lever="gpu_time_per_token ▸ batch under-fill",
            ),
            CauseTag(
                driver="volume", slice={}, share=-0.5, usd_per_hour=-ATTO, confidence=0, lever=""
            ),
        ),
        **changes,
    }
    return Anomaly(**values)


# --- the schema ----------------------------------------------------------------------------------


def test_migrating_again_applies_nothing_and_keeps_what_is_there(
    target: ClickHouseTarget, batch_of: MakeBatch
) -> None:
    applied = migrate(target)
    assert applied == sorted(applied)
    assert applied
    writer, reader = ClickHouseWriter(target), ClickHouseReader(target)
    writer.write_lines(CostLines.of(price_batch(batch_of(0), BOOK)))
    assert migrate(target) == []
    assert reader.stored("") == Stored(1, 100, 20, 0)
    noted = reader.rows("SELECT name FROM migrations ORDER BY name")
    assert [name for (name,) in noted] == applied


def test_a_crash_before_a_migration_was_noted_is_mended_by_the_next_one(
    target: ClickHouseTarget, batch_of: MakeBatch
) -> None:
    applied = migrate(target)
    writer, reader = ClickHouseWriter(target), ClickHouseReader(target)
    writer.write_lines(CostLines.of(price_batch(batch_of(0), BOOK)))
    reader.raw("TRUNCATE TABLE migrations", "TSV")
    assert migrate(target) == applied
    assert reader.stored("").requests == 1


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a;b",
        "a.b",
        "1a",
        "a-b",
        "a`b",
        "a'b",
        "a\n",
        "x; DROP DATABASE default",
        "größe",
    ],
)
def test_a_database_name_that_is_no_identifier_is_refused_before_anything_is_sent(
    target: ClickHouseTarget, name: str
) -> None:
    unreachable = replace(target, url="http://127.0.0.1:1", database=name)
    with pytest.raises(MeteringError, match="database name") as error:
        migrate(unreachable)
    assert not isinstance(error.value, SinkUnavailable)


OF_THE_VIEW = {
    "cost_requests": {"output_tokens_per_second", "output_tokens_per_decode_gpu_second"},
    "cost_windows": {"output_tokens_per_gpu_second"},
    "cost_anomalies": {"driver", "slice", "share", "lever"},
}
"""What a view derives; the rest are the fields of the contract."""


@pytest.mark.parametrize(
    ("model", "view", "renamed"),
    [
        (CostLine, "cost_requests", {"time_ns": "time"}),
        (WindowRow, "cost_windows", {"window_start_ms": "window_start"}),
        (Anomaly, "cost_anomalies", {"window_start_ms": "window_start"}),
    ],
)
def test_every_field_of_the_contract_has_a_column(
    store: Store, model: type[CostLine | WindowRow | Anomaly], view: str, renamed: dict[str, str]
) -> None:
    _, reader = store
    columns = {row[0] for row in reader.rows(f"DESCRIBE TABLE {view}")}
    fields = {*model.model_fields, *model.model_computed_fields}
    assert {renamed.get(field, field) for field in fields} <= columns
    assert columns == {renamed.get(field, field) for field in fields} | OF_THE_VIEW[view]


# --- lines ---------------------------------------------------------------------------------------


def test_speed_is_told_in_wall_time_and_in_gpu_time(store: Store, batch_of: MakeBatch) -> None:
    writer, reader = store
    told = {"output_tokens": 20, "prefill_gpu_ns": 10**8, "decode_gpu_ns": 4 * 10**8}
    phases = {"prefill_ns": 10**8, "decode_ns": 4 * 10**8}
    batches = [
        batch_of(0, gpu_ns=5 * 10**8, wall_ns=10**9, requests=[told], **phases),
        batch_of(1, gpu_ns=5 * 10**8, wall_ns=10**9, requests=[{"output_tokens": 20}]),
    ]
    writer.write_lines(
        CostLines.of([line for b in batches for line in price_batch(b, PriceBook([]))])
    )
    assert reader.rows(
        "SELECT output_tokens_per_second, output_tokens_per_decode_gpu_second "
        "FROM cost_requests ORDER BY sequence"
    ) == [(20.0, 50.0), (20.0, None)]


def read_lines(reader: ClickHouseReader) -> list[CostLine]:
    """Every column of every line, as the type that was written."""
    fields = [f for f in CostLine.model_fields if f != "time_ns"]
    found = reader.rows(
        f"SELECT toUnixTimestamp64Nano(time), {', '.join(fields)} "
        "FROM cost_requests ORDER BY source, sequence, position"
    )
    return [CostLine(**dict(zip(["time_ns", *fields], row, strict=True))) for row in found]


def test_a_line_comes_back_as_it_was_to_the_attodollar_and_the_nanosecond(
    store: Store, batch_of: MakeBatch
) -> None:
    writer, reader = store
    request = {
        "request_id": 'it\'s \\ "quoted"\n\t\0 größer 🧾',
        "retry_of": "",
        "team": "t",
        "project": "p",
        "user": "u",
        "identity_source": "header",
        "operation": "embeddings",
        "status": "error",
        "rows": 2**32 - 1,
        "cached_input_tokens": 1,
        "reasoning_tokens": 2,
        "queue_ns": 0,
    }
    batches = [
        batch_of(0, end_epoch_ns=NOON_NS + 987_654_321, gpu_ns=7, requests=[request]),
        batch_of(1, gpu_ns=2**52 + 1, requests=[{"tenant": "a"}, {"tenant": "b"}]),
        batch_of(2**52, end_epoch_ns=1, speedup=2**32 - 1),
        batch_of(3, accelerator="unheard of", end_epoch_ns=2**63 - 1),
    ]
    lines = [line for batch in batches for line in price_batch(batch, BOOK)]
    writer.write_lines(CostLines.of(lines))
    found = read_lines(reader)
    assert found == sorted(lines, key=lambda line: (line.sequence, line.position))
    assert found[0].retry_of == ""
    assert found[0].queue_ns == 0
    assert found[1].retry_of is None
    assert found[1].queue_ns is None


def test_the_costs_of_a_batch_sum_to_it_in_the_database_too(
    store: Store, batch_of: MakeBatch
) -> None:
    writer, reader = store
    batch = batch_of(0, gpu_ns=10**12 + 7, requests=[{} for _ in range(7)])
    lines = price_batch(batch, BOOK)
    writer.write_lines(CostLines.of(lines))
    ((total, inputs, outputs),) = reader.rows(
        "SELECT sum(cost_usd), sum(input_cost_usd), sum(output_cost_usd) FROM cost_requests"
    )
    assert total == sum(line.cost_usd for line in lines if line.cost_usd is not None)
    assert inputs + outputs == total


def test_an_unpriced_line_has_no_cost_rather_than_a_cost_of_0(
    store: Store, batch_of: MakeBatch
) -> None:
    writer, reader = store
    writer.write_lines(CostLines.of(price_batch(batch_of(0, accelerator="unheard of"), BOOK)))
    free = parse_price_book(
        '[[gpu_hour]]\nid = "free"\naccelerator = "cpu"\nregion = "*"\nusd_per_gpu_hour = "0"\n'
        "effective_from = 2020-01-01T00:00:00Z\n",
        "book",
    )
    writer.write_lines(CostLines.of(price_batch(batch_of(1), free)))
    found = reader.rows(
        "SELECT pricing_status, usd_per_gpu_hour, cost_usd, input_cost_usd, output_cost_usd "
        "FROM cost_requests ORDER BY sequence"
    )
    nothing = Decimal(0)
    assert found == [
        ("unpriced", None, None, None, None),
        ("priced", nothing, nothing, nothing, nothing),
    ]
    assert reader.stored("").unpriced == 1


def test_lines_that_are_written_twice_count_once(store: Store, batch_of: MakeBatch) -> None:
    writer, reader = store
    lines = price_batch(batch_of(0, requests=[{}, {}, {}]), BOOK)
    more = price_batch(batch_of(1), BOOK)
    writer.write_lines(CostLines.of(lines))
    writer.write_lines(CostLines.of(lines[1:]))
    writer.write_lines(CostLines.of([*more, *lines, *more]))
    assert reader.stored("").requests == 4
    assert read_lines(reader) == [*lines, *more]


def test_lines_that_differ_in_one_part_of_their_identity_are_two(
    store: Store, batch_of: MakeBatch
) -> None:
    writer, reader = store
    for batch in (
        batch_of(0),
        batch_of(1),
        batch_of(0, source="another"),
        batch_of(0, requests=[{}, {}]),
    ):
        writer.write_lines(CostLines.of(price_batch(batch, BOOK)))
    assert reader.stored("").requests == 4


def test_nothing_to_write_asks_nobody(target: ClickHouseTarget) -> None:
    writer = ClickHouseWriter(replace(target, url="http://127.0.0.1:1"))
    writer.write_lines(CostLines.of([]))
    writer.write_windows(WindowRows.of([]))
    writer.write_anomalies([])


# --- windows -------------------------------------------------------------------------------------


def read_windows(reader: ClickHouseReader) -> list[WindowRow]:
    fields = [f for f in WindowRow.model_fields if f != "window_start_ms"]
    found = reader.rows(
        f"SELECT toUnixTimestamp64Milli(window_start), {', '.join(fields)} "
        "FROM cost_windows ORDER BY window_start, window_seconds, tenant, model"
    )
    return [WindowRow(**dict(zip(["window_start_ms", *fields], row, strict=True))) for row in found]


def test_a_window_comes_back_as_it_was_with_its_quotients(store: Store) -> None:
    writer, reader = store
    rows = [window(), window(tenant="none", requests=1, input_tokens=0, output_tokens=0)]
    writer.write_windows(WindowRows.of(rows))
    assert read_windows(reader) == rows
    quotients = reader.rows(
        "SELECT usd_per_million_input_tokens, usd_per_million_output_tokens, usd_per_request "
        "FROM cost_windows ORDER BY tenant"
    )
    assert quotients == [
        (
            row.usd_per_million_input_tokens,
            row.usd_per_million_output_tokens,
            row.usd_per_request,
        )
        for row in rows
    ]
    assert quotients[1] == (None, None, None)


@pytest.mark.parametrize("together", [False, True])
def test_the_row_that_has_counted_further_wins_in_whatever_order_they_come(
    store: Store, together: bool
) -> None:
    writer, reader = store
    older, newer = window(counted_to=10, requests=4), window(counted_to=11, requests=5)
    for first, second in ((older, newer), (newer, older)):
        if together:
            writer.write_windows(WindowRows.of([first, second]))
        else:
            writer.write_windows(WindowRows.of([first]))
            writer.write_windows(WindowRows.of([second]))
        assert read_windows(reader) == [newer]


def test_final_wins_over_open_where_both_have_counted_as_far(store: Store) -> None:
    writer, reader = store
    opened, final = window(final=False), window(final=True)
    writer.write_windows(WindowRows.of([final]))
    writer.write_windows(WindowRows.of([opened]))
    assert read_windows(reader) == [final]


def test_a_correction_wins_over_the_final_row_before_it(store: Store) -> None:
    writer, reader = store
    final = window(final=True, counted_to=10)
    correction = window(final=True, counted_to=12, requests=9)
    writer.write_windows(WindowRows.of([final, correction]))
    writer.write_windows(WindowRows.of([final]))
    assert read_windows(reader) == [correction]


def test_windows_of_other_lengths_tenants_models_and_starts_are_rows_of_their_own(
    store: Store,
) -> None:
    writer, reader = store
    writer.write_windows(
        WindowRows.of(
            [
                window(),
                window(window_seconds=60),
                window(tenant="b"),
                window(model="m"),
                window(window_start_ms=1_780_000_001_000),
            ]
        )
    )
    assert len(read_windows(reader)) == 5


def test_requests_that_no_final_window_has_counted_are_known(
    store: Store, batch_of: MakeBatch
) -> None:
    writer, reader = store
    start_ms = 1_780_000_000_000
    times_ns = [(start_ms + ms) * 10**6 for ms in (-1, 0, 9_999, 10_000)]
    for n, at_ns in enumerate(times_ns):
        writer.write_lines(CostLines.of(price_batch(batch_of(n, end_epoch_ns=at_ns), BOOK)))
    assert reader.requests_in_open_windows(start_ms + 5_000) == 3, "from the window's start on"
    writer.write_windows(
        WindowRows.of(
            [
                window(window_start_ms=start_ms, requests=2, final=True),
                window(window_start_ms=start_ms, requests=2, final=True, window_seconds=60),
                window(window_start_ms=start_ms + 10_000, requests=1, final=False),
            ]
        )
    )
    assert reader.requests_in_open_windows(start_ms) == 1
    writer.write_windows(
        WindowRows.of([window(window_start_ms=start_ms + 10_000, requests=1, final=True)])
    )
    assert reader.requests_in_open_windows(start_ms) == 0


# --- anomalies -----------------------------------------------------------------------------------


def test_an_anomaly_comes_back_with_all_its_causes_and_its_first_in_columns(store: Store) -> None:
    writer, reader = store
    told, silent = anomaly(region="eu-west"), anomaly(anomaly_id="none", causes=())
    writer.write_anomalies([told, silent])
    fields = [f for f in Anomaly.model_fields if f not in ("window_start_ms", "causes")]
    found = reader.rows(
        f"SELECT toUnixTimestamp64Milli(window_start), causes, {', '.join(fields)} "
        "FROM cost_anomalies ORDER BY anomaly_id"
    )
    names = ["window_start_ms", "causes", *fields]
    documents = [dict(zip(names, row, strict=True)) for row in found]
    read = [Anomaly(**{**d, "causes": json.loads(d["causes"])}) for d in documents]
    assert read == [told, silent]
    tops = reader.rows("SELECT driver, slice, share, lever FROM cost_anomalies ORDER BY anomaly_id")
    top = told.causes[0]
    assert tops == [(top.driver, top.slice, top.share, top.lever), ("", {}, 0.0, "")]


def test_an_anomaly_that_is_told_again_is_one(store: Store) -> None:
    writer, reader = store
    writer.write_anomalies([anomaly()])
    writer.write_anomalies([anomaly(), anomaly(anomaly_id="another")])
    assert reader.rows("SELECT count() FROM cost_anomalies") == [(2,)]


# --- the project's questions ---------------------------------------------------------------------


def test_stored_counts_the_lines_of_one_run(store: Store, batch_of: MakeBatch) -> None:
    writer, reader = store
    requests = [{"request_id": "run_1-a"}, {"request_id": "run_1-b"}, {"request_id": "run%1-c"}]
    writer.write_lines(CostLines.of(price_batch(batch_of(0, requests=requests), BOOK)))
    assert reader.stored("run_1-") == Stored(2, 200, 40, 0)
    assert reader.stored("run%") == Stored(1, 100, 20, 0)
    assert reader.stored("'; DROP TABLE cost_request_lines; --") == Stored(0, 0, 0, 0)
    assert reader.stored("") == Stored(3, 300, 60, 0)


def test_unit_costs_leave_unpriced_requests_out_of_every_quotient(
    store: Store, batch_of: MakeBatch
) -> None:
    writer, reader = store
    priced = price_batch(batch_of(0, gpu_ns=36 * 10**9), BOOK)
    unpriced = price_batch(batch_of(1, accelerator="unheard of"), BOOK)
    nobody = price_batch(batch_of(2, accelerator="unheard of", requests=[{"tenant": "z"}]), BOOK)
    writer.write_lines(CostLines.of([*priced, *unpriced, *nobody]))
    first, second = reader.unit_costs()
    (line,) = priced
    assert line.input_cost_usd is not None
    assert line.output_cost_usd is not None
    assert (first.tenant, first.requests, first.cost_usd) == ("acme", 2, line.cost_usd)
    assert first.usd_per_request == line.cost_usd
    assert first.usd_per_million_input_tokens == line.input_cost_usd * 10**6 / 100
    assert first.usd_per_million_output_tokens == line.output_cost_usd * 10**6 / 20
    assert (second.tenant, second.cost_usd) == ("z", Decimal(0))
    assert second.usd_per_request is None
    assert second.usd_per_million_input_tokens is None
    assert reader.unit_costs(since_ms=NOON_NS // 10**6 + 1) == []
    assert reader.unit_costs("r-2-")[0].tenant == "z"


def test_unit_costs_count_the_requests_whose_weights_are_not_measured(
    store: Store, batch_of: MakeBatch
) -> None:
    writer, reader = store
    rules = ("equal-split/2@default", "affine-shapley/2", "equal-split/2@default", "equal-split/2")
    for n, rule in enumerate(rules):
        batch = batch_of(n, apportionment_rule=rule)
        writer.write_lines(CostLines.of(price_batch(batch, BOOK)))
    (cost,) = reader.unit_costs()
    assert (cost.requests, cost.requests_by_default_weights) == (4, 2)


def test_unit_costs_leave_refused_requests_out_of_every_quotient(
    store: Store, batch_of: MakeBatch
) -> None:
    """They got nothing and cost nothing. A cache hit costs nothing too, but is an answer."""
    writer, reader = store
    (line,) = price_batch(batch_of(0, gpu_ns=36 * 10**9), BOOK)
    others = [
        price_batch(
            batch_of(n, gpu_ns=0, executed=False, requests=[{"status": status, "tenant": tenant}]),
            BOOK,
        )[0]
        for n, (status, tenant) in enumerate(
            [("rejected", "acme"), ("timed_out", "acme"), ("cache_hit", "acme"), ("rejected", "z")],
            1,
        )
    ]
    writer.write_lines(CostLines.of([line, *others]))
    acme, refused = reader.unit_costs()
    assert line.cost_usd is not None
    assert line.output_cost_usd is not None
    assert (acme.tenant, acme.requests, acme.cost_usd) == ("acme", 4, line.cost_usd)
    assert acme.usd_per_request == line.cost_usd / 2
    hits = line.output_tokens + others[2].output_tokens
    assert acme.usd_per_million_output_tokens == quotient(line.output_cost_usd, hits, 10**6)
    assert (refused.tenant, refused.cost_usd, refused.usd_per_request) == ("z", Decimal(0), None)
    assert refused.usd_per_million_input_tokens is None


def test_what_has_no_price_is_told_with_what_a_price_would_have_to_be_for(
    store: Store, batch_of: MakeBatch
) -> None:
    writer, reader = store
    priced = price_batch(batch_of(0), BOOK)
    unpriced = price_batch(batch_of(1, accelerator="unheard of", gpu_ns=5 * 10**8), BOOK)
    writer.write_lines(CostLines.of([*priced, *unpriced]))
    (line,) = unpriced
    expected = Unpriced("acme", line.model, "unheard of", line.region, 1, 0.5)
    assert reader.unpriced() == [expected]
    assert reader.unpriced(since_ms=NOON_NS // 10**6 + 1) == []


# --- refusals ------------------------------------------------------------------------------------

PASSWORD = "pa55word-never-shown"  # noqa: S105  only a test's


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_a_table_that_is_not_there_is_a_refusal_that_names_it_and_the_rows(
    target: ClickHouseTarget, batch_of: MakeBatch
) -> None:
    migrate(target)
    writer, reader = ClickHouseWriter(target), ClickHouseReader(target)
    reader.raw("DROP TABLE cost_request_lines", "TSV")
    lines = price_batch(batch_of(0, requests=[{}, {}]), BOOK)
    with pytest.raises(SinkUnavailable, match="cost_request_lines did not take 2 rows"):
        writer.write_lines(CostLines.of(lines))


def test_a_writer_goes_on_after_a_refusal(target: ClickHouseTarget, batch_of: MakeBatch) -> None:
    writer = ClickHouseWriter(target)
    lines = price_batch(batch_of(0), BOOK)
    for _ in range(2):
        with pytest.raises(SinkUnavailable):
            writer.write_lines(CostLines.of(lines))  # the database is not made yet
    migrate(target)
    writer.write_lines(CostLines.of(lines))
    assert ClickHouseReader(target).stored("").requests == 1


def test_nobody_there_is_a_refusal_by_writer_reader_and_migration(
    target: ClickHouseTarget, batch_of: MakeBatch
) -> None:
    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        away = replace(target, url=url, password=PASSWORD)
        attempts: list[Callable[[], object]] = [
            lambda: migrate(away),
            lambda: ClickHouseReader(away),
            lambda: ClickHouseWriter(away).write_lines(
                CostLines.of(price_batch(batch_of(0), BOOK))
            ),
        ]
        for attempt in attempts:
            with pytest.raises(SinkUnavailable) as error:
                attempt()
            assert PASSWORD not in shown(error.value)


def test_wrong_credentials_are_a_refusal_that_does_not_show_them(target: ClickHouseTarget) -> None:
    stranger = replace(target, user="a_stranger", password=PASSWORD)
    with pytest.raises(SinkUnavailable, match=r"(?i)authentication") as error:
        migrate(stranger)
    assert PASSWORD not in shown(error.value)
    assert PASSWORD not in repr(stranger)
    assert PASSWORD not in str(stranger)


def test_a_question_that_clickhouse_refuses_shows_no_password(
    target: ClickHouseTarget,
) -> None:
    migrate(target)
    reader = ClickHouseReader(target)
    for ask in (lambda: reader.rows("SELECT nonsense"), lambda: reader.raw("SELEC 1", "TSV")):
        with pytest.raises(QueryFailed, match=r"(?i)nonsense|syntax error") as error:
            ask()
        if target.password:
            assert target.password not in shown(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8123",
        "tcp://127.0.0.1:9000",
        "http://",
        "http://127.0.0.1:99999",
        "http://:1",
    ],
)
def test_a_url_that_is_none_is_refused_by_name(target: ClickHouseTarget, url: str) -> None:
    with pytest.raises(MeteringError, match="want http") as error:
        migrate(replace(target, url=url))
    assert not isinstance(error.value, SinkUnavailable)


def test_credentials_in_a_url_are_refused_and_not_shown(target: ClickHouseTarget) -> None:
    with pytest.raises(MeteringError, match="credentials") as error:
        migrate(replace(target, url=f"http://u:{PASSWORD}@127.0.0.1:1"))
    assert PASSWORD not in shown(error.value)


def test_lines_of_any_month_since_1970_are_taken_at_once(store: Store, batch_of: MakeBatch) -> None:
    """An event may be late by decades; an insert that is refused would be tried for ever."""
    writer, reader = store
    month_ns = 31 * 86_400 * 10**9
    batches = [batch_of(n, end_epoch_ns=n * month_ns) for n in range(300)]
    lines = [line for batch in batches for line in price_batch(batch, BOOK)]
    writer.write_lines(CostLines.of(lines))
    assert reader.rows("SELECT count() FROM cost_requests") == [(300,)]


@pytest.mark.parametrize("end_epoch_ns", [0, 1, 2**63 - 1])
def test_the_first_and_the_last_moment_are_stored(
    store: Store, batch_of: MakeBatch, end_epoch_ns: int
) -> None:
    """With the largest numbers that usage may have."""
    writer, reader = store
    most = 2**53 - 1
    request = {"input_tokens": most, "output_tokens": most, "queue_ns": most, "rows": 2**32 - 1}
    batch = batch_of(
        most, end_epoch_ns=end_epoch_ns, gpu_ns=most, speedup=2**32 - 1, requests=[request]
    )
    (line,) = price_batch(batch, BOOK)
    writer.write_lines(CostLines.of([line]))
    assert reader.rows(
        "SELECT toUnixTimestamp64Nano(time), sequence, input_tokens, queue_ns, rows, speedup, "
        "cost_usd FROM cost_requests"
    ) == [(end_epoch_ns, most, most, most, 2**32 - 1, 2**32 - 1, line.cost_usd)]
    start_ms = end_epoch_ns // 10**6 // 86_400_000 * 86_400_000
    row = window(window_start_ms=start_ms, window_seconds=86_400, requests=2**64 - 1,
                 unpriced_requests=0, input_tokens=2**64 - 1, cost_usd=Decimal(9 * 10**12) - ATTO,
                 counted_to=2**62)  # fmt: skip
    writer.write_windows(WindowRows.of([row]))
    assert read_windows(reader) == [row]


def test_unit_costs_of_more_tokens_than_64_bits_hold_are_right(
    store: Store, batch_of: MakeBatch
) -> None:
    writer, reader = store
    most = 2**53 - 1
    requests = [{"input_tokens": most, "output_tokens": 0}]
    (line,) = price_batch(batch_of(0, gpu_ns=most, requests=requests), BOOK)
    lines = [line.model_copy(update={"sequence": n}) for n in range(2_049)]
    writer.write_lines(CostLines.of(lines))
    (cost,) = reader.unit_costs()
    assert line.cost_usd is not None
    assert line.input_cost_usd is not None
    assert cost.input_tokens == 2_049 * most
    assert cost.cost_usd == usd(2_049 * atto_usd(line.cost_usd))
    assert cost.usd_per_request == line.cost_usd
    assert cost.usd_per_million_input_tokens == quotient(line.input_cost_usd, most, 10**6)
    assert cost.usd_per_million_output_tokens is None
    assert reader.stored("").input_tokens == 2_049 * most
    nothing = dict.fromkeys(("cost_usd", "input_cost_usd", "output_cost_usd"))
    nothing |= {"pricing_status": "unpriced"}
    writer.write_lines(CostLines.of([x.model_copy(update=nothing) for x in lines]))
    (unpriced,) = reader.unpriced()
    assert unpriced.gpu_seconds == pytest.approx(2_049 * most / 1e9)

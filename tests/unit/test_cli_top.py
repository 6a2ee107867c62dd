"""What ``meter top``, ``sql`` and ``calibrate`` show, without a ClickHouse."""

from __future__ import annotations

import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pytest
from rich.console import Console

from metering.calibration import MeasuredBatch
from sinks.clickhouse.queries import UnitCost, Unpriced
from streams.calibrate import fit_all
from streams.cli.calibrate import _show
from streams.cli.common import DEFAULT_FOLDER
from streams.cli.sql import shortened, sql
from streams.cli.top import _as_json, by_default_weights, calibrate_command, shown

BOOK = Path("/etc/prices.toml")


def cost(tenant: str, requests: int = 10, usd: str = "0.5", **more: Any) -> UnitCost:
    each = Decimal(usd) / requests if Decimal(usd) else None
    return UnitCost(
        tenant=tenant, model="chat", requests=requests, input_tokens=100, output_tokens=50,
        gpu_seconds=2.0, mean_batch_size=2.0, cost_usd=Decimal(usd),
        usd_per_million_input_tokens=each, usd_per_million_output_tokens=each,
        usd_per_request=each, **more,
    )  # fmt: skip


def on_screen(*args: Any, width: int = 120) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(shown(*args))
    return console.export_text()


def test_without_unpriced_usage_nothing_is_said_of_it() -> None:
    assert "price" not in on_screen([cost("acme")], [], 60, BOOK)


def test_unpriced_usage_is_shown_with_its_count_its_gpu_time_and_what_is_missing() -> None:
    unpriced = [
        Unpriced("globex", "chat", "NVIDIA H200", "eu-west", 3, 1.5),
        Unpriced("acme", "chat", "", "eu-west", 1, 0.25),
    ]
    text = on_screen([cost("acme"), cost("globex", 3, "0")], unpriced, 60, BOOK)
    assert "4 requests (1.75 GPU s) have no price" in text
    assert "3 requests (1.50 GPU s): no price of accelerator 'NVIDIA H200'" in text
    assert "1 request (0.25 GPU s): model chat names no accelerator" in text
    assert str(BOOK) in text
    (row,) = [line.split() for line in text.splitlines() if line.startswith("globex")]
    assert row[-4:] == ["–", "–", "–", "3"]


def test_models_whose_weights_are_measured_are_not_named() -> None:
    assert "calibrate" not in on_screen([cost("acme")], [], 60, BOOK)


def test_models_with_default_weights_are_named_once_with_the_command_that_measures_them() -> None:
    costs = [cost("acme", requests_by_default_weights=1), cost("globex")]
    costs.append(cost("globex", requests_by_default_weights=9))
    text = " ".join(on_screen(costs, [], 60, BOOK, width=80).split())
    assert text.count("in the costs of chat; to measure them: meter calibrate") == 1


def test_of_many_models_with_default_weights_the_dearest_three_are_named() -> None:
    costs = [replace(cost("acme", requests_by_default_weights=1), model=f"m{n}") for n in range(5)]
    said = by_default_weights(costs, "meter calibrate")
    assert said is not None
    assert "costs of m0, m1, m2 and 2 more; " in said


def test_the_command_that_is_suggested_names_the_folder_of_the_stack() -> None:
    assert calibrate_command(DEFAULT_FOLDER) == "meter calibrate"
    assert calibrate_command(Path("a b")) == "meter calibrate --dir 'a b'"


@pytest.mark.parametrize("accelerator", ["", "unknown", "unknown-gpu"])
def test_a_model_on_a_gpu_without_a_name_is_told_to_name_it(accelerator: str) -> None:
    unpriced = [Unpriced("acme", "chat", accelerator, "eu-west", 1, 0.25)]
    assert "model chat names no accelerator" in on_screen([cost("acme")], unpriced, 60, BOOK)


def test_on_a_narrow_terminal_rates_are_left_out_and_no_name_or_figure_is_cut_off() -> None:
    small = [replace(cost(f"tenant-{t}"), model="llama_70b_sim") for t in "abc"]
    small = [
        replace(
            c, cost_usd=Decimal("0.0000000123"), usd_per_million_input_tokens=Decimal("0.0000187")
        )
        for c in small
    ]
    lacking = [Unpriced("tenant-a", "llama_70b_sim", "x", "y", 3, 1.5)]
    text = on_screen(small, lacking, 600, BOOK, width=80)
    table = text.partition("3 requests")[0]
    assert "…" not in table
    for shown_whole in (
        "tenant-a",
        "llama_70b_sim",
        "USD/h",
        "0.0000000738",
        "0.0000187",
        "unpriced",
    ):
        assert shown_whole in table
    assert "out/s" not in table
    assert "out/s" in on_screen(small, lacking, 600, BOOK, width=120)


def test_json_has_what_is_unpriced_in_each_cohort() -> None:
    lacking = Unpriced("globex", "chat", "NVIDIA H200", "eu-west", 3, 1.5)
    first, second = _as_json([cost("acme"), cost("globex")], [lacking])
    assert first["unpriced"] == []
    assert second["unpriced"] == [
        {"accelerator": "NVIDIA H200", "region": "eu-west", "requests": 3, "gpu_seconds": 1.5}
    ]


def test_a_tenant_may_be_called_what_a_terminal_would_take_for_markup() -> None:
    text = on_screen([cost("[red]"), cost("[/nope]")], [], 60, BOOK)
    assert "[red]" in text
    assert "[/nope]" in text


def test_without_a_request_it_says_so() -> None:
    assert on_screen([], [], 60, BOOK).strip() == "no request in the last 60 s"


def test_a_query_may_begin_with_a_comment() -> None:
    query = "-- What did each tenant spend?\nSELECT 1"
    read = sql.make_context("sql", [query, "--format", "CSV"]).params
    assert read["query"].strip() == query
    assert read["output_format"] == "CSV"


def test_a_misspelt_option_of_sql_is_no_query() -> None:
    with pytest.raises(click.NoSuchOption):
        sql.make_context("sql", ["--formt", "CSV", "SELECT 1"])


@pytest.mark.parametrize(
    ("message", "short"),
    [
        (
            "ClickHouse at http://c:1: Received ClickHouse exception, code: 62, server response: "
            "Code: 62. DB::Exception: Syntax error: failed at position 1 (SELEC) (line 1, col 1): "
            "SELEC 1. Maybe you meant: SELECT. Expected one of: Query, WITH, FROM, "
            + "a, " * 900
            + "end of query. (SYNTAX_ERROR) (version 26.9.2.1) (for url http://c:1)",
            "ClickHouse at http://c:1: Syntax error: failed at position 1 (SELEC) (line 1, col 1): "
            "SELEC 1. Maybe you meant: SELECT (SYNTAX_ERROR, code 62)",
        ),
        (
            "ClickHouse at http://c:1: Code: 81. DB::Exception: Database nope does not exist. "
            "(UNKNOWN_DATABASE) (version 26.9.2.1 (official build))",
            "ClickHouse at http://c:1: Database nope does not exist (UNKNOWN_DATABASE, code 81)",
        ),
        ("ClickHouse at http://c:1: broken off", "ClickHouse at http://c:1: broken off"),
    ],
)
def test_an_error_of_clickhouse_is_what_is_wrong_and_where(message: str, short: str) -> None:
    assert shortened(message) == short


def test_no_error_of_clickhouse_fills_the_screen() -> None:
    assert len(shortened("ClickHouse at http://c:1: " + "x " * 5_000)) < 700


def test_calibrations_fit_into_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    batches = [
        MeasuredBatch(3_000_000 + 27_000 * i + 445_000 * o, 8, 8 * i, 8 * o, i, o)
        for i in range(1, 60)
        for o in (1, 7, 40)
    ]
    _show(fit_all({("llama_8b_sim", "simulated H100"): batches}, "affine-shapley", "v1"), None)
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "llama_8b_sim on simulated H100" in out
    assert "177 batches" in out
    for name in ("fixed", "input_token", "output_token"):
        assert any(line.split()[:1] == [name] for line in out.splitlines())

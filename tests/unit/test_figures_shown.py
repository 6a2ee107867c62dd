"""Every place that shows people money, rates and parts shows digits that count."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from detectors.levers import lever
from metering.calibration import Calibration, Coefficient
from metering.capacity import BatchStats
from metering.costs import Anomaly, CauseTag
from metering.money import usd
from metering.reconciliation import Bounds, Snapshot, Tally, judge
from sinks.alertmanager import summary
from sinks.webhook import cloud_event
from streams.calibrate import Fitted
from streams.cli import calibrate
from streams.cli.top import table
from streams.demo.render import show
from streams.publisher import anomaly_record
from streams.reconcile_table import verdict_table
from tests.unit.test_demo_report import COST, GOOD, found
from tests.unit.test_reconciler import COUNTERS

REPO = Path(__file__).parents[2]
ANOMALY = Anomaly(
    anomaly_id="a", window_start_ms=1_780_000_000_000, window_seconds=10, tenant="acme",
    model="tiny", score=9.0, score_unit="nats", threshold=7.0, expected_usd=usd(0),
    observed_usd=Decimal("0.00001"), usd_per_hour=Decimal("0.0000001"),
    causes=(
        CauseTag(
            driver="volume", slice={}, share=0.004, usd_per_hour=usd(0), confidence=0.5, lever="l"
        ),
    ),
)  # fmt: skip


def shown(renderable: Any) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


@pytest.mark.parametrize(
    ("share", "change", "text"),
    [
        (0.004, 0.004, "0.40 % of +$0.0040/h"),
        (1.0, -0.0000123, "100 % of −$0.000012/h"),
        (0.83, 41.2, "83 % of +$41/h"),
        (0.83, 1.2, "83 % of +$1.20/h"),
        (0.83, 9.999, "83 % of +$10.00/h"),
        (0.83, 1234567.8, "83 % of +$1,234,568/h"),
    ],
)
def test_a_lever(share: float, change: float, text: str) -> None:
    assert lever("volume", "more requests", {}, share, change).endswith(text)


def test_an_alert() -> None:
    assert summary(ANOMALY) == (
        "acme on tiny spends $0.0036 an hour, $0.00000010 more than expected"
    )


def test_an_event_has_no_exponent() -> None:
    for body in (cloud_event(ANOMALY, "s"), anomaly_record(ANOMALY).value or b""):
        told = re.findall(r'"\w*usd\w*": ?"([^"]*)"', body.decode())
        assert sorted(told) == sorted(
            ["0." + "0" * 18, "0.00001", "0.0000001", "0." + "0" * 18]
        )  # fmt: skip
    assert Anomaly.model_validate_json(ANOMALY.model_dump_json()) == ANOMALY


@pytest.mark.parametrize(
    ("cost_usd", "per_million", "texts"),
    [
        (usd(0), usd(0), ("0", "0")),
        (Decimal("0.000001"), Decimal("1E-9"), ("0.0000600", "0.00000000100")),
        (Decimal("123456"), Decimal("12345678"), ("7,407,360", "12,345,678")),
        (Decimal("1E-18"), None, ("0.0000000000000000600", "–")),
    ],
)
def test_meter_top(cost_usd: Decimal, per_million: Decimal | None, texts: tuple[str, str]) -> None:
    cost = replace(
        COST, requests=1, input_tokens=3, cost_usd=cost_usd,
        usd_per_million_input_tokens=per_million,
    )  # fmt: skip
    row = shown(table([cost], 60)).splitlines()[-1].split()
    assert row[2:4] == ["0.017", "0.050"]
    assert (row[6], row[7]) == texts


def test_the_demo() -> None:
    console = Console(file=io.StringIO(), width=200)
    anomaly = replace(
        found(),
        usd_per_hour=Decimal("0.0004"),
        causes=tuple(replace(cause, share=0.001) for cause in found().causes),
    )
    show(replace(GOOD, found=[anomaly]), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "0.10 % of +0.00040 USD/h" in text
    assert "up to 3.60 USD/h" in text
    assert "0.00000000000000000100" in text


def test_a_demo_without_spend_shows_none() -> None:
    console = Console(file=io.StringIO(), width=200)
    show(replace(GOOD, spend=[replace(GOOD.spend[0], cost_usd=usd(0))]), console)
    assert "up to 0 USD/h" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_reconciliation() -> None:
    second = BatchStats(size=1, executions=1, compute_infer_ns=10**9)
    counters = COUNTERS.model_copy(update={"batch_stats": (second,)})
    stored = Tally(executions=1, rows=1, gpu_ns=400_000, answered=1)
    at = Snapshot(host="h", boot_id="b", time_ns=1, asked_ns=1)
    text = shown(verdict_table([judge(at, counters, Bounds(stored, stored))]))
    assert "1.00  0.00040  0.040%" in text


def test_a_calibration(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    coefficients = {"input_token_ps": Coefficient(400, 1.0)}
    fit = Calibration("affine-shapley", coefficients, 40, 0, 0.00002, None, 1.0)
    calibrate._show([Fitted("m", "a", 40, fit, "", "1")], None)
    told = capsys.readouterr().out
    assert "0.00040" in told
    assert "0.000020" in told


MONEY = re.compile(r"\{[^{}]*:[+,]*\.\d+[fge%]\}")


@pytest.mark.parametrize("room", ["metering", "detectors", "sinks", "streams", "docs/examples"])
def test_no_sentence_about_money_is_formatted_elsewhere(room: str) -> None:
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted((REPO / room).rglob("*.py"))
        for line in path.read_text().splitlines()
        if re.search(r"usd|\$\{|\bcost", line, re.IGNORECASE) and MONEY.search(line)
    ]
    assert found == []

"""The demo's report: what does not hold is named, and its JSON is a contract."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from metering.capacity import BatchStats, Failures, ModelCounters
from metering.reconciliation import Bounds, Snapshot, Verdict, judge
from metering.reconciliation import Tally as Reconciled
from sinks.clickhouse.queries import UnitCost
from streams.audit import Audit
from streams.demo.render import show
from streams.demo.report import Cause, DemoReport, Found, WindowSpend
from streams.replay.load_result import Cohort, LoadResult, Tally
from streams.replay.scenario import SCENARIOS

SCENARIO = SCENARIOS["long-prompts"]
START_MS = 1_780_000_000_000


def verdict(metered_executions: int = 5) -> Verdict:
    server = ModelCounters(
        model="llama_8b_sim", version="1", successes=20, failures=Failures(), cache_hits=0,
        cache_misses=0, queue_ns=0,
        batch_stats=(BatchStats(size=4, executions=5, compute_infer_ns=1_000),),
    )  # fmt: skip
    stored = Reconciled(metered_executions, 20, 990, 20)
    at = Snapshot(host="h", boot_id="b", time_ns=1, asked_ns=2)
    return judge(at, server, Bounds(stored, stored))


def cause(**changes: Any) -> Cause:
    known = Cause(
        SCENARIO.expected_driver,
        {"tenant": SCENARIO.expected_tenant, "model": SCENARIO.expected_model},
        0.83,
        Decimal("34.030000000000000001"),
        "input_length ▸ shorter prompts",
    )
    return replace(known, **changes)


def found(**changes: Any) -> Found:
    known = Found(
        START_MS + 70_000,
        SCENARIO.expected_tenant,
        SCENARIO.expected_model,
        Decimal(41),
        in_incident=True,
        causes=(cause(),),
    )
    return replace(known, **changes)


def load(answered: int = 20, failed: int = 0) -> LoadResult:
    tally = Tally(answered + failed, answered, failed, 100, 50)
    failures = {"UNAVAILABLE: gone": failed} if failed else {}
    cohort = Cohort("llama_8b_sim", "acme", "calm")
    return LoadResult({cohort: tally}, failures, 0.1, 0.2, 0.0, 100.0)


COST = UnitCost(
    tenant="acme",
    model="llama_8b_sim",
    requests=20,
    input_tokens=100,
    output_tokens=50,
    gpu_seconds=1.5,
    mean_batch_size=4.0,
    cost_usd=Decimal("0.000000000000000001"),
    usd_per_million_input_tokens=Decimal("1E-9"),
    usd_per_million_output_tokens=None,
    usd_per_request=Decimal("12.5"),
)
GOOD = DemoReport(
    scenario=SCENARIO,
    killed=None,
    restarts={"worker": 0},
    load=load(),
    topics=Audit(metered=20, priced=20, batches=5, batch_rows=20, mismatches=0, refused=0),
    stored=20,
    verdicts=[verdict()],
    unit_costs=[COST],
    spend=[WindowSpend(START_MS, "acme", Decimal("0.01"))],
    incident_ns=(START_MS + 65_000) * 10**6,
    found=[found()],
    delivered=1,
    folder=Path("build/demo"),
    seconds=104.26,
)
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "metered": ({"topics": replace(GOOD.topics, metered=19)}, "19 requests metered, 20 answered"),
    "priced": ({"topics": replace(GOOD.topics, priced=18)}, "18 requests priced, 20 answered"),
    "stored": ({"stored": 21}, "21 requests stored, 20 answered"),
    "failed": ({"load": load(failed=2)}, "2 requests failed: {'UNAVAILABLE: gone': 2}"),
    "conservation": ({"topics": replace(GOOD.topics, mismatches=1)}, "1 batches do not sum"),
    "refused": ({"topics": replace(GOOD.topics, refused=3)}, "3 usage messages were refused"),
    "reconciliation": ({"verdicts": [verdict(4)]}, "llama_8b_sim: "),
    "calm": (
        {"found": [found(), found(in_incident=False)], "delivered": 2},
        "1 anomalies in calm traffic",
    ),
    "silence": ({"found": [], "delivered": 0}, "the incident was not noticed"),
    "no cause": ({"found": [found(causes=())]}, "no cause was found"),
    "driver": (
        {"found": [found(causes=(cause(driver="volume"),))]},
        "('volume', 'acme') was named",
    ),
    "tenant": (
        {"found": [found(causes=(cause(slice={"tenant": "globex"}),))]},
        "('input_length', 'globex') was named",
    ),
    "no tenant": (
        {"found": [found(causes=(cause(slice={}),))]},
        "('input_length', None) was named",
    ),
    "delivery": ({"delivered": 0}, "0 of 1 anomalies were delivered"),
}


def test_a_demo_in_which_all_holds_has_no_problems() -> None:
    assert GOOD.problems == []


@pytest.mark.parametrize("broken", BROKEN)
def test_each_fact_that_does_not_hold_is_named_alone(broken: str) -> None:
    changes, expected = BROKEN[broken]
    (problem,) = replace(GOOD, **changes).problems
    assert expected in problem


def test_facts_that_do_not_hold_together_are_all_named() -> None:
    report = replace(
        GOOD,
        topics=Audit(metered=1, priced=2, batches=5, batch_rows=20, mismatches=4, refused=5),
        stored=3,
        load=load(failed=6),
        verdicts=[verdict(4)],
        found=[found(in_incident=False)],
        delivered=0,
    )
    expected = (
        *("1 requests metered", "2 requests priced", "3 requests stored", "6 requests failed"),
        *("4 batches", "5 usage messages", "llama_8b_sim", "1 anomalies in calm"),
        *("not noticed", "0 of 1 anomalies were delivered"),
    )
    problems = report.problems
    assert len(problems) == len(expected)
    for part in expected:
        assert any(part in problem for problem in problems), part


def test_the_json_has_exactly_its_keys() -> None:
    document = json.loads(json.dumps(GOOD.as_json()))
    assert {
        key: set(value) if isinstance(value, dict) else None for key, value in document.items()
    } == {
        "incident": None,
        "killed": None,
        "requests": {"answered", "metered", "priced", "stored"},
        "batches": {"count", "mean_size"},
        "conservation": {"mismatches"},
        "reconciliation": {"llama_8b_sim"},
        "unit_costs": None,
        "anomalies": {"calm", "incident", "delivered"},
        "top_cause": {"driver", "slice", "share", "usd_per_hour"},
        "problems": None,
        "seconds": None,
    }
    sides = document["reconciliation"]["llama_8b_sim"]
    assert {name: sides[name] for name in ("executions", "rows", "gpu_ns")} == {
        "executions": {"server": 5, "metered": 5},
        "rows": {"server": 20, "metered": 20},
        "gpu_ns": {"server": 1_000, "metered": 990},
    }
    assert (sides["coverage_percent"], sides["agrees"]) == ("100.00", True)


def test_the_json_says_what_the_report_has() -> None:
    document = json.loads(json.dumps(replace(GOOD, killed="worker").as_json()))
    assert document["killed"] == "worker"
    assert document["requests"] == {"answered": 20, "metered": 20, "priced": 20, "stored": 20}
    assert document["batches"] == {"count": 5, "mean_size": 4.0}
    assert document["anomalies"] == {"calm": 0, "incident": 1, "delivered": 1}
    assert document["seconds"] == 104.3
    assert document["problems"] == []


def test_money_in_the_json_is_exact_text_and_an_unknown_price_is_null() -> None:
    document = json.loads(json.dumps(GOOD.as_json()))
    (cost,) = document["unit_costs"]
    assert cost["cost_usd"] == "0.000000000000000001"
    assert cost["usd_per_million_input_tokens"] == "0.000000001"
    assert cost["usd_per_million_output_tokens"] is None
    assert document["top_cause"]["usd_per_hour"] == "34.030000000000000001"


def test_the_top_cause_is_the_first_of_the_dearest_anomaly_of_the_incident() -> None:
    dearest = found(usd_per_hour=Decimal(50), causes=(cause(lever="first"), cause(lever="second")))
    report = replace(
        GOOD,
        found=[
            found(),
            dearest,
            found(usd_per_hour=Decimal(60), causes=()),
            found(usd_per_hour=Decimal(70), in_incident=False),
        ],
    )
    assert report.top == (dearest, dearest.causes[0])
    assert replace(GOOD, found=[]).as_json()["top_cause"] is None


def test_a_demo_without_a_batch_has_no_mean_size_to_divide_by() -> None:
    nothing = Audit(metered=0, priced=0, batches=0, batch_rows=0, mismatches=0, refused=0)
    assert replace(GOOD, topics=nothing).mean_batch_size == 0.0


def test_an_anomaly_is_read_from_its_row_with_its_money_exact() -> None:
    causes = (
        '[{"driver": "volume", "slice": {"tenant": "acme"}, "share": 0.5, '
        '"usd_per_hour": "1.000000000000000001", "confidence": 1.0, "lever": "x"}]'
    )
    row = (START_MS, 10, "acme", "tiny", Decimal(3), "volume", {}, 0.5, "x", causes)
    anomaly = Found.from_row(row, in_incident=True)
    assert (anomaly.tenant, anomaly.model, anomaly.usd_per_hour) == ("acme", "tiny", Decimal(3))
    assert anomaly.causes[0].usd_per_hour == Decimal("1.000000000000000001")


def shown(report: DemoReport) -> str:
    out = io.StringIO()
    show(report, Console(file=out, width=160))
    return out.getvalue()


def test_people_see_every_problem_and_otherwise_that_there_is_none() -> None:
    assert "everything adds up" in shown(GOOD)
    changed = replace(GOOD, stored=3, delivered=0)
    text = shown(changed)
    assert "everything adds up" not in text
    for problem in changed.problems:
        assert problem in text


@pytest.mark.parametrize("broken", BROKEN)
def test_people_can_be_shown_any_report(broken: str) -> None:
    assert "✗" in shown(replace(GOOD, **BROKEN[broken][0]))


def test_people_see_that_a_process_was_killed_and_how_often_it_came_back() -> None:
    text = shown(replace(GOOD, killed="worker", restarts={"worker": 1}))
    assert "worker was killed (-9) in the middle, and restarted 1 time(s)" in text

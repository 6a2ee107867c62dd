"""Prometheus, Alertmanager and Grafana ask for what the project tells and stores."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from metering.costs import Anomaly, CauseTag, WindowRow
from metering.lines import CostLines
from metering.prices import parse_price_book
from metering.pricing import price_batch
from metering.usage import UsageBatch
from metering.window_rows import WindowRows
from sinks.clickhouse.schema import migrate
from sinks.clickhouse.writer import ClickHouseWriter
from sinks.prometheus import (
    DetectorMetrics,
    ReconcilerMetrics,
    SentinelMetrics,
    ShipperMetrics,
    WorkerMetrics,
)
from tests.contract.conftest import ClickHouse

REPO = Path(__file__).parents[2]
DEPLOY = REPO / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
ALERTMANAGER = DEPLOY / "alertmanager"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))

SERVICES: dict[str, Any] = yaml.safe_load((REPO / "docker-compose.yml").read_text())["services"]
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
SCRAPED: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())[
    "scrape_configs"
]
PANELS = [
    pytest.param(panel, id=f"{path.stem}-{panel['title']}")
    for path in DASHBOARDS
    for panel in json.loads(path.read_text())["panels"]
]
PROCESSES = (WorkerMetrics, ShipperMetrics, DetectorMetrics, SentinelMetrics, ReconcilerMetrics)
SCRAPE_LABELS = {"job", "instance", "process"}
PROMQL = {
    *("and", "or", "unless", "by", "on", "offset"),
    *("sum", "min", "max", "count", "vector", "rate", "increase", "histogram_quantile"),
}
NOON_S = 1_780_000_000
REGION = "local"

every_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda p: p.stem)


def exposed() -> dict[str, set[str]]:
    """Every series of the processes, with its labels, as Prometheus sees it."""
    registry = CollectorRegistry()
    found: dict[str, set[str]] = {"up": set()}
    for process in PROCESSES:
        for metric in vars(process(registry)).values():
            if not isinstance(metric, MetricWrapperBase):
                continue
            labels = set(metric._labelnames)
            (family,) = metric.describe()
            if family.type == "counter":
                found[f"{family.name}_total"] = labels
            elif family.type == "histogram":
                found[f"{family.name}_bucket"] = labels | {"le"}
                found |= {f"{family.name}_{part}": labels for part in ("count", "sum")}
            else:
                found[family.name] = labels
    return found


def series_of(promql: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric with the labels that it is selected by; a name of no metric is one too."""
    text = re.sub(r"\[[^\]]*\]", "", promql)
    text = re.sub(r"\boffset \w+", "", text)
    text = re.sub(r"\b(?:by|on) \([^)]*\)", "", text)
    for name, braces in re.findall(r"\b([a-zA-Z_]\w*)(\{[^}]*\})?", text):
        if name not in PROMQL:
            yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", braces))


def grouping_of(promql: str) -> set[str]:
    groups = re.findall(r"\b(?:by|on) \(([^)]*)\)", promql)
    return {label.strip() for group in groups for label in group.split(",")}


def known(promql: str) -> None:
    metrics = exposed()
    seen: set[str] = set()
    for name, labels in series_of(promql):
        assert name in metrics, name
        assert labels <= metrics[name] | SCRAPE_LABELS, name
        seen |= metrics[name]
    assert grouping_of(promql) <= seen | SCRAPE_LABELS


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r["alert"])
def test_a_rule_asks_for_what_the_processes_tell(rule: dict[str, Any]) -> None:
    known(rule["expr"])
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rule["annotations"]) == {"summary", "action"}
    aggregated = re.search(r"\bsum by \(([^)]*)\)", rule["expr"])
    left = set(aggregated[1].split(", ")) if aggregated else SCRAPE_LABELS
    for text in rule["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= left


@pytest.mark.parametrize(
    "promql",
    ["sum(meter_request_total)", "up > 1 and meter_lag == 0", 'meter_requests_total{tenant="a"}'],
)
def test_a_metric_or_label_that_is_not_there_is_noticed(promql: str) -> None:
    with pytest.raises(AssertionError):
        known(promql)


def test_every_rule_has_an_example() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))
    examples = (PROMETHEUS / "rules.test.yml").read_text()
    grouped = re.findall(r'alertname=~"(\w+)\.\*"', examples)
    told = set(re.findall(r"\bMeter\w+", examples))
    assert {n for n in names if n not in told and not n.startswith(tuple(grouped))} == set()
    assert {n for n in told if n not in names and n not in grouped} == set()


def test_everything_that_is_scraped_is_a_service_that_serves_metrics() -> None:
    targets = [
        target
        for job in SCRAPED
        for config in job["static_configs"]
        for target in config["targets"]
    ]
    for target in targets:
        host, port = target.split(":")
        service = SERVICES["prometheus" if host == "localhost" else host]
        assert port in service["expose"], target
    ours = {
        f"{name}:{service['environment']['METER_METRICS_PORT']}"
        for name, service in SERVICES.items()
        if "METER_METRICS_PORT" in service.get("environment", {}) and name != "topics"
    }
    assert ours <= set(targets)
    assert len(targets) == len(set(targets))


def own_prometheus_check() -> None:
    document = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert set(document) == {"global", "rule_files", "alerting", "scrape_configs"}
    assert all((PROMETHEUS / name).exists() for name in document["rule_files"])
    (receiver,) = document["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    host, port = receiver.split(":")
    assert port in SERVICES[host]["expose"]
    for rule in RULES:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        assert rule["expr"].count("(") == rule["expr"].count(")")


def promtool_check() -> None:
    for command in (
        ["check", "config", str(PROMETHEUS / "prometheus.yml")],
        ["test", "rules", str(PROMETHEUS / "rules.test.yml")],
    ):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def own_alertmanager_check() -> None:
    for path in ALERTMANAGER.glob("*.yml"):
        document = yaml.safe_load(path.read_text())
        routes = [document["route"], *document["route"].get("routes", [])]
        receivers = {r["name"]: r for r in document["receivers"]}
        assert {route["receiver"] for route in routes} <= set(receivers)
        for receiver in receivers.values():
            for webhook in receiver.get("webhook_configs", []):
                secret = Path(webhook["url_file"])
                assert secret.parent == Path("/run/secrets")
                assert secret.name in SERVICES["alertmanager"]["secrets"]
    quiet = yaml.safe_load((ALERTMANAGER / "alertmanager.yml").read_text())
    assert quiet["receivers"] == [{"name": "nobody"}]


def amtool_check() -> None:
    told = subprocess.run(["amtool", "--version"], capture_output=True, text=True, check=True)
    version = re.search(r"version (\d+)\.(\d+)", told.stdout + told.stderr)
    assert version is not None
    knows_url_file = (int(version[1]), int(version[2])) >= (0, 26)
    for name in ["alertmanager.yml", *(["webhook.yml"] if knows_url_file else [])]:
        command = ["amtool", "check-config", str(ALERTMANAGER / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


CHECKS = [
    pytest.param(own_prometheus_check, id="prometheus"),
    pytest.param(own_alertmanager_check, id="alertmanager"),
    *([pytest.param(promtool_check, id="promtool")] if shutil.which("promtool") else []),
    *([pytest.param(amtool_check, id="amtool")] if shutil.which("amtool") else []),
]


@pytest.mark.parametrize("check", CHECKS)
def test_the_configuration_of_monitoring_is_sound(check: Callable[[], None]) -> None:
    check()


@every_dashboard
def test_a_dashboard_is_one_that_grafana_takes(path: Path) -> None:
    board = json.loads(path.read_text())
    files = [json.loads(other.read_text()) for other in DASHBOARDS]
    assert [b["uid"] for b in files].count(board["uid"]) == 1
    sources = yaml.safe_load(
        (DEPLOY / "grafana" / "provisioning" / "datasources" / "meter.yml").read_text()
    )["datasources"]
    known_sources = {source["uid"]: source["type"] for source in sources}
    for holder in [*board["panels"], *board["templating"]["list"]]:
        for part in [holder, *holder.get("targets", [])]:
            assert known_sources[part["datasource"]["uid"]] == part["datasource"]["type"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_grafana_finds_its_sources_and_dashboards() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    grafana = SERVICES["grafana"]
    mounts = {v.split(":")[1]: v.split(":")[0] for v in grafana["volumes"]}
    assert (REPO / mounts["/etc/grafana/provisioning"]).samefile(provisioning)
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "meter.yml").read_text())[
        "providers"
    ]
    assert (REPO / mounts[provider["options"]["path"]]).samefile(DASHBOARDS[0].parent)
    sources = yaml.safe_load((provisioning / "datasources" / "meter.yml").read_text())
    plugins = grafana["environment"]["GF_PLUGINS_PREINSTALL_SYNC"]
    for source in sources["datasources"]:
        host, port = (
            source["url"].removeprefix("http://").split(":")
            if "url" in source
            else (source["jsonData"]["host"], str(source["jsonData"]["port"]))
        )
        assert port in SERVICES[host]["expose"]
        assert source["type"] == "prometheus" or source["type"] == plugins.split("@")[0]
        for secret in source.get("secureJsonData", {}).values():
            assert secret.removeprefix("$") in grafana["environment"]


@pytest.fixture
def filled(clickhouse: ClickHouse, batch_of: Callable[..., UsageBatch]) -> ClickHouse:
    """The project's tables with one line, one window and one anomaly at noon."""
    target = clickhouse.target(clickhouse.database)
    migrate(target)
    book = parse_price_book(
        '[[gpu_hour]]\nid="x"\naccelerator="cpu"\nregion="*"\nusd_per_gpu_hour="1"\n'
        'effective_from=2020-01-01T00:00:00Z\nsource="made up"',
        "book",
    )
    lines = price_batch(batch_of(), book)
    counts = dict.fromkeys(("unpriced_requests", "cached_input_tokens", "retries"), 0)
    window = WindowRow(
        window_start_ms=NOON_S * 1000 - NOON_S * 1000 % 60_000, window_seconds=60, tenant="acme",
        model="tiny", region=REGION, final=True, counted_to=1, requests=1, batch_size_sum=1,
        input_tokens=100, output_tokens=20, gpu_ns=90, input_gpu_ns=30, output_gpu_ns=60,
        cost_usd=Decimal(3), input_cost_usd=Decimal(1), output_cost_usd=Decimal(2), **counts,
    )  # fmt: skip
    cause = CauseTag(
        driver="volume", slice={"model": "tiny"}, share=0.8, usd_per_hour=Decimal(4),
        confidence=0.9, lever="volume ▸ {model=tiny}",
    )  # fmt: skip
    anomaly = Anomaly(
        anomaly_id="a", window_start_ms=window.window_start_ms, window_seconds=60, tenant="acme",
        model="tiny", region=REGION, score=9.0, score_unit="nats", threshold=7.0,
        expected_usd=Decimal(1), observed_usd=Decimal(3), usd_per_hour=Decimal(120),
        causes=(cause,),
    )  # fmt: skip
    writer = ClickHouseWriter(target)
    writer.write_lines(CostLines.of(lines))
    writer.write_windows(WindowRows.of([window]))
    writer.write_anomalies([anomaly])
    writer.close()
    return clickhouse


def expanded(sql: str, region: str = REGION) -> str:
    """As Grafana's ClickHouse plug-in expands its macros, for the hour around noon."""
    since, until = f"toDateTime({NOON_S - 1800})", f"toDateTime({NOON_S + 1800})"
    sql = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 >= {since} AND \1 <= {until}", sql)
    sql = re.sub(
        r"\$__timeInterval\((\w+)\)",
        r"toStartOfInterval(toDateTime(\1), INTERVAL 60 second)",
        sql,
    )
    for macro, value in (
        ("$__interval_s", "60"),
        ("$__fromTime", since),
        ("$__toTime", until),
        ("${tenant:singlequote}", "'acme','other'"),
        ("${model:singlequote}", "'tiny'"),
        ("${region:singlequote}", f"'{region}','other'"),
    ):
        sql = sql.replace(macro, value)
    assert "$" not in sql, sql
    return sql


@pytest.mark.stack
def test_every_question_of_the_dashboards_has_an_answer(filled: ClickHouse) -> None:
    asked = 0
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        queries = [(v["name"], v["query"]["rawSql"], 1) for v in board["templating"]["list"]]
        queries += [
            (panel["title"], target["rawSql"], target["format"])
            for panel in board["panels"]
            for target in panel["targets"]
            if "rawSql" in target
        ]
        for title, sql, form in queries:
            answer = json.loads(filled.value(f"{expanded(sql)} FORMAT JSONCompact"))
            assert answer["rows"] == 1, title
            assert None not in answer["data"][0], title
            if form == 0:
                assert answer["meta"][0]["type"].startswith("DateTime"), title
            asked += 1
    assert asked > 20


@pytest.mark.stack
def test_the_dashboards_of_costs_tell_what_was_written(filled: ClickHouse) -> None:
    board = json.loads((DASHBOARDS[0].parent / "costs.json").read_text())
    sql = {panel["title"]: panel["targets"][0]["rawSql"] for panel in board["panels"]}
    assert filled.value(expanded(sql["Cost"])) == "3"
    assert filled.value(expanded(sql["Cost per hour"])) == "3"
    assert filled.value(expanded(sql["Cost"], region="elsewhere")) == "0"
    by_tenant = filled.value(expanded(sql["Cost per hour by tenant"])).split("\t")
    assert by_tenant[1:] == ["acme", "180"]
    table = sql["Unit costs per tenant and model"]
    assert filled.value(expanded(table)).split("\t") == [
        "acme", "tiny", "1", "100", "20", "9e-8", "1", "3", "10000", "100000", "3", "0"
    ]  # fmt: skip
    assert "cost_requests" not in table


@pytest.mark.stack
def test_what_is_from_before_regions_were_told_apart_can_be_chosen_too(filled: ClickHouse) -> None:
    filled.value(
        "INSERT INTO cost_window_rows (window_start, window_seconds, tenant, model, cost_usd) "
        f"VALUES ({NOON_S}, 60, 'acme', 'tiny', 5)"
    )
    board = json.loads((DASHBOARDS[0].parent / "costs.json").read_text())
    variables = {v["name"]: v["query"]["rawSql"] for v in board["templating"]["list"]}
    sql = {panel["title"]: panel["targets"][0]["rawSql"] for panel in board["panels"]}
    assert filled.value(expanded(variables["region"])).split() == ["(none)", REGION]
    assert filled.value(expanded(sql["Cost"], region="(none)")) == "5"
    assert filled.value(expanded(sql["Cost"])) == "3"


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_asks_for_what_the_processes_tell(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        if "expr" in target:
            known(re.sub(r"\$__\w+", "5m", target["expr"]))
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert labels <= grouping_of(target["expr"]) | {"instance", "partition"}
        else:
            assert target["rawSql"]


@pytest.mark.stack
def test_unit_costs_by_model_leave_out_what_has_no_price(filled: ClickHouse) -> None:
    """Tokens that nobody priced, and those of which an earlier version did not say."""
    at = NOON_S - NOON_S % 60
    filled.value(
        "INSERT INTO cost_window_rows (window_start, window_seconds, tenant, model, region, "
        "requests, unpriced_requests, input_tokens, output_tokens, input_cost_usd, "
        "output_cost_usd) VALUES "
        f"({at}, 60, 'acme', 'tiny', 'other', 9, 9, 900, 900, 0, 0), "
        f"({at}, 60, 'other', 'tiny', 'other', 9, 5, 900, 900, 70, 70)"
    )
    board = json.loads((DASHBOARDS[0].parent / "costs.json").read_text())
    sql = {panel["title"]: panel["targets"][0]["rawSql"] for panel in board["panels"]}
    for kind, expected in (("input", "10000"), ("output", "100000")):
        found = filled.value(expanded(sql[f"USD per million {kind} tokens by model"]))
        assert found.split("\t")[1:] == ["tiny", expected]


def test_no_panel_rounds_money_or_a_part_to_a_fixed_number_of_decimals() -> None:
    """Without one Grafana shows as many as the value needs: 0.004 USD is not 0.00."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            config = panel["fieldConfig"]
            told = [config["defaults"]]
            told += [
                {p["id"]: p["value"] for p in override["properties"]}
                for override in config["overrides"]
            ]
            for options in told:
                if options.get("unit") in ("currencyUSD", "percentunit"):
                    assert "decimals" not in options, panel["title"]

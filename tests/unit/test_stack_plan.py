"""From a configuration to addresses and the units to run; and where a running stack is found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from metering.errors import StackError
from streams.demo.run import DemoOptions, stack_of
from streams.settings import Settings
from streams.stack.config import Endpoints, StackConfig
from streams.stack.groups import read_process
from streams.stack.kafka import cluster_id, server_properties
from streams.stack.plan import (
    DEPENDS,
    Ports,
    emitter_env,
    place_price_book,
    plan,
    settings_for,
    with_dependencies,
)
from streams.stack.ports import PortBook
from streams.stack.recipe import Recipe
from streams.stack.running import ENDPOINTS_FILE, find_running
from streams.stack.services import SERVICES


@pytest.fixture
def ports() -> Iterator[Ports]:
    book = PortBook()
    yield Ports.take(book, preferred=False)
    book.release()


def units(config: StackConfig, ports: Ports, only: tuple[str, ...]) -> dict[str, object]:
    folder = config.folder
    settings = settings_for(config, folder, ports, Settings())
    planned = plan(
        config=config,
        folder=folder,
        settings=settings,
        ports=ports,
        shm="test_",
        on_progress=lambda _: None,
        only=only,
    )
    return {unit.name: unit for unit in planned}


def test_what_a_process_depends_on_runs_too(tmp_path: Path, ports: Ports) -> None:
    needed = {"worker", "topics", "kafka", "schema", "clickhouse"}
    assert with_dependencies(["worker"]) == needed
    assert set(units(StackConfig(tmp_path), ports, ("shipper",))) == {"shipper", "topics", "kafka"}


def test_every_dependency_exists_and_comes_earlier() -> None:
    names = list(DEPENDS)
    for name, needed in DEPENDS.items():
        assert all(names.index(other) < names.index(name) for other in needed)


def test_a_name_that_there_is_not_is_an_error() -> None:
    with pytest.raises(StackError, match="kafkaa"):
        with_dependencies(["kafkaa"])


def test_given_addresses_are_used_and_not_started(tmp_path: Path, ports: Ports) -> None:
    config = StackConfig(
        tmp_path, kafka="k:9092", clickhouse="https://c:8443", triton="gpu.example:9001"
    )
    settings = settings_for(config, tmp_path, ports, Settings())
    assert (settings.kafka, settings.clickhouse) == ("k:9092", "https://c:8443")
    assert settings.triton_grpc == "gpu.example:9001"
    assert settings.triton_http == "gpu.example:9000"
    assert settings.triton_metrics == "gpu.example:9002"
    planned = units(config, ports, tuple(DEPENDS))
    assert set(planned) == {"topics", "schema", *(service.name for service in SERVICES)}


def test_credentials_go_to_what_runs_elsewhere_and_not_to_the_own_processes(
    tmp_path: Path, ports: Ports
) -> None:
    base = Settings(
        kafka_security_protocol="SASL_SSL",
        kafka_username="ann",
        kafka_password=SecretStr("k"),
        clickhouse_user="bob",
        clickhouse_password=SecretStr("c"),
        webhook_secret=SecretStr("w"),
    )
    elsewhere = StackConfig(tmp_path, kafka="k:9093", clickhouse="https://c:8443")
    given = settings_for(elsewhere, tmp_path, ports, base)
    assert (given.kafka_username, given.clickhouse_user) == ("ann", "bob")
    assert given.kafka_security_protocol == "SASL_SSL"

    own = settings_for(StackConfig(tmp_path), tmp_path, ports, base)
    assert (own.kafka_security_protocol, own.kafka_username) == ("PLAINTEXT", "")
    assert own.kafka_password.get_secret_value() == ""
    assert (own.clickhouse_user, own.clickhouse_password.get_secret_value()) == ("default", "")
    assert own.webhook_secret.get_secret_value() == "w"


@pytest.mark.parametrize(("cap", "expected"), [(None, 5_000_000), (70_000, 70_000)])
def test_the_logs_cap_is_that_of_the_stack_for_server_and_shipper_alike(
    tmp_path: Path, ports: Ports, cap: int | None, expected: int
) -> None:
    config = StackConfig(tmp_path, log_max_bytes=cap)
    settings = settings_for(config, tmp_path, ports, Settings(log_max_bytes=5_000_000))
    planned = plan(
        config=config,
        folder=tmp_path,
        settings=settings,
        ports=ports,
        shm="meter_test_",
        on_progress=lambda _: None,
    )
    told = {unit.name: unit.env for unit in planned if isinstance(unit, Recipe)}
    for name in ("triton", "shipper"):
        assert told[name]["METER_LOG_MAX_BYTES"] == str(expected)


@pytest.mark.parametrize("address", ["8001", "host", "host:grpc"])
def test_a_triton_address_without_host_and_port_is_an_error(
    tmp_path: Path, ports: Ports, address: str
) -> None:
    with pytest.raises(StackError, match="HOST:PORT"):
        settings_for(StackConfig(tmp_path, triton=address), tmp_path, ports, Settings())


def test_each_service_gets_the_settings_and_a_metrics_port_of_its_own(
    tmp_path: Path, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METER_KAFKA_USERNAME", "of another stack")
    config = StackConfig(tmp_path, kafka="k:9092", clickhouse="http://c:1", webhooks=("http://w",))
    planned = units(config, ports, ("shipper", "worker", "detector"))
    seen = set()
    for name in ("shipper", "worker", "detector"):
        recipe = planned[name]
        assert isinstance(recipe, Recipe)
        settings = Settings.from_env(recipe.env)
        assert (settings.kafka, settings.webhooks) == ("k:9092", ("http://w",))
        assert settings.kafka_username == ""
        assert settings.metrics_port == ports.metrics[name]
        seen.add(settings.metrics_port)
    assert len(seen) == 3


def test_what_the_environment_says_holds_where_the_stack_is_not_told_otherwise(
    tmp_path: Path, ports: Ports
) -> None:
    base = Settings.from_env(
        {
            "METER_WEBHOOKS": "http://hook/a,http://hook/b",
            "METER_PRICE_BOOK": "prices/own.toml",
            "METER_ALERT_FLOOR_USD_PER_HOUR": "7.5",
            "METER_ALERTMANAGER": "http://am:9093",
            "METER_CAPACITY_INTERVAL_S": "2",
            "METER_KAFKA_CA_FILE": "ca.pem",
        }
    )
    found = settings_for(StackConfig(tmp_path), tmp_path, ports, base)
    assert found.webhooks == ("http://hook/a", "http://hook/b")
    assert found.price_book == Path("prices/own.toml").resolve()
    assert found.alert_floor_usd_per_hour == 7.5
    assert (found.alertmanager, found.capacity_interval_s) == ("http://am:9093", 2.0)
    assert settings_for(StackConfig(tmp_path), tmp_path, ports, Settings()).price_book == (
        tmp_path / "prices.toml"
    )
    told = StackConfig(tmp_path, webhooks=("http://w",), alert_floor_usd_per_hour=0.0)
    found = settings_for(told, tmp_path, ports, base)
    assert (found.webhooks, found.alert_floor_usd_per_hour) == (("http://w",), 0.0)


def test_a_certificates_file_is_named_in_full_as_services_work_elsewhere(
    tmp_path: Path, ports: Ports
) -> None:
    base = Settings.from_env({"METER_KAFKA_CA_FILE": "ca.pem"})
    found = settings_for(StackConfig(tmp_path, kafka="k:1"), tmp_path, ports, base)
    assert found.kafka_ca_file == Path("ca.pem").resolve()


def test_the_models_get_every_variable_that_they_read(tmp_path: Path) -> None:
    env = {
        "METER_IDENTITY": "gateway",
        "METER_GATEWAY_KEY_FILE": "key.pem",
        "METER_LOG_FSYNC": "always",
        "METER_REGION": "eu-west",
        "METER_SIM_SPEEDUP": "2",
        "METER_LOG_DIR": "of another stack",
        "METER_KAFKA_PASSWORD": "not for models",
        "PATH": "/bin",
    }
    settings = Settings(log_dir=tmp_path / "log")
    given = emitter_env(StackConfig(tmp_path), tmp_path, settings, env)
    assert given == {
        "METER_IDENTITY": "gateway",
        "METER_GATEWAY_KEY_FILE": str(Path("key.pem").resolve()),
        "METER_LOG_FSYNC": "always",
        "METER_REGION": "eu-west",
        "METER_DEPLOYMENT": "dev",
        "METER_SIM_SPEEDUP": "2",
        "METER_LOG_DIR": str(tmp_path / "log"),
        "METER_LOG_MAX_BYTES": str(settings.log_max_bytes),
    }
    config = StackConfig(tmp_path, region="us-east", emitter_env={"METER_LOG_FSYNC": "never"})
    given = emitter_env(config, tmp_path, settings, env)
    assert (given["METER_REGION"], given["METER_LOG_FSYNC"]) == ("us-east", "never")


def test_a_demo_is_the_same_whatever_the_environment_says(tmp_path: Path, ports: Ports) -> None:
    base = Settings.from_env(
        {
            "METER_WEBHOOKS": "http://hook/a",
            "METER_PRICE_BOOK": "the-companys.toml",
            "METER_ALERT_FLOOR_USD_PER_HOUR": "100",
        }
    )
    config = stack_of(DemoOptions(tmp_path), "http://receiver/")
    found = settings_for(config, tmp_path, ports, base)
    assert found.price_book == tmp_path / "prices.toml"
    assert found.webhooks == ("http://receiver/",)
    assert found.alert_floor_usd_per_hour == Settings().alert_floor_usd_per_hour < 0.24
    place_price_book(found, tmp_path)
    assert (tmp_path / "prices.toml").is_file()
    env = emitter_env(config, tmp_path, found, {"METER_IDENTITY": "gateway", "METER_REGION": "x"})
    assert "METER_IDENTITY" not in env
    assert env["METER_REGION"] == "local"


def test_a_model_that_is_not_in_the_repository_is_an_error(tmp_path: Path, ports: Ports) -> None:
    config = StackConfig(tmp_path, models=("no_such_model",), model_repository=tmp_path)
    with pytest.raises(StackError, match="no_such_model"):
        units(config, ports, ("triton",))


def test_kafka_listens_on_the_loopback_only() -> None:
    lines = dict(line.split("=", 1) for line in server_properties(1111, 2222).splitlines())
    assert lines["listeners"] == "PLAINTEXT://127.0.0.1:1111,CONTROLLER://127.0.0.1:2222"
    assert lines["advertised.listeners"] == "PLAINTEXT://127.0.0.1:1111"


def test_a_cluster_id_is_what_kafka_takes_for_one() -> None:
    ids = {cluster_id() for _ in range(200)}
    assert len(ids) == 200
    assert all(len(i) == 22 and not i.startswith("-") for i in ids)


def published(folder: Path, pid: int, ticks: int) -> Endpoints:
    endpoints = Endpoints(
        kafka="k:1",
        clickhouse="http://c:1",
        triton_grpc="t:1",
        triton_http="t:2",
        triton_metrics="t:3",
        folder=folder,
        log_dir=folder,
        price_book=folder / "prices.toml",
        metrics={},
        pids={"kafka": 1},
        supervisor_pid=pid,
        supervisor_started_ticks=ticks,
    )
    (folder / ENDPOINTS_FILE).write_text(endpoints.model_dump_json())
    return endpoints


def test_a_running_stack_is_found(tmp_path: Path) -> None:
    own = read_process(os.getpid())
    assert own is not None
    assert find_running(tmp_path) is None
    assert published(tmp_path, own.pid, own.started_ticks) == find_running(tmp_path)


def test_a_stack_whose_pid_now_belongs_to_another_process_is_not_running(tmp_path: Path) -> None:
    own = read_process(os.getpid())
    assert own is not None
    published(tmp_path, own.pid, own.started_ticks + 1)
    assert find_running(tmp_path) is None
    published(tmp_path, 2**22 + 1, own.started_ticks)  # above the highest pid of Linux
    assert find_running(tmp_path) is None


def test_a_half_written_endpoints_file_is_no_running_stack(tmp_path: Path) -> None:
    (tmp_path / ENDPOINTS_FILE).write_text('{"kafka": ')
    assert find_running(tmp_path) is None

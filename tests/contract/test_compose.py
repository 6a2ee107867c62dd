"""docker-compose.yml agrees with the code: settings, topics, ports, modules, models, secrets."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jsonschema  # type: ignore[import-untyped]  # has no stubs
import pytest
import yaml

from sinks.health import HEALTH_PATH
from streams.cli.main import command_of
from streams.settings import PREFIX, Settings
from streams.stack import services as stack
from streams.stack.config import MODELS
from streams.stack.kafka import server_properties
from streams.stack.triton import TritonInstall, TritonPorts, triton_recipe
from streams.topics import TOPICS

REPO = Path(__file__).parents[2]
COMPOSE = REPO / "docker-compose.yml"
GPU = REPO / "deploy" / "compose.gpu.yml"
ENV_EXAMPLE = REPO / "deploy" / "env.example"
OWN_IMAGE = "inference-meter:local"
USAGE_LOG = "usage-log"

_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?::([-?])([^}]*))?\}")
_ADDRESS = re.compile(r"(?<![\w.])([a-z][a-z0-9.-]*|\d+\.\d+\.\d+\.\d+)?:(\d{4,5})(?![\w:])")
_CLICKHOUSE_PORTS = {8123, 9000}
_LOOPBACK = {"127.0.0.1", "localhost"}


def interpolate(text: str, required: str = "given") -> str:
    """As Compose does it where nothing is set but what must be."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return required if match[2] == "?" else (match[3] or "")

    return _VARIABLE.sub(value, text)


def interpolated(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: interpolated(value) for key, value in node.items()}
    if isinstance(node, list):
        return [interpolated(value) for value in node]
    return interpolate(node) if isinstance(node, str) else node


RAW: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
DOCUMENT: dict[str, Any] = interpolated(RAW)
SERVICES: dict[str, Any] = DOCUMENT["services"]
OWN = [name for name, service in SERVICES.items() if service["image"] == OWN_IMAGE]
METERED = {"triton", *OWN}

every_service = pytest.mark.parametrize("name", sorted(SERVICES))


def environment(name: str) -> dict[str, str]:
    return {key: str(value) for key, value in SERVICES[name].get("environment", {}).items()}


def texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        node = [*node.keys(), *node.values()]
    if isinstance(node, list):
        for part in node:
            yield from texts(part)
    elif node is not None:
        yield str(node)


def listens_on(name: str) -> set[int]:
    """The ports that the service's own configuration opens."""
    service, env = SERVICES[name], environment(name)
    if name == "kafka":
        return {int(port) for port in re.findall(r"//:(\d+)", env["KAFKA_LISTENERS"])}
    if name == "clickhouse":
        return _CLICKHOUSE_PORTS
    if "GF_SERVER_HTTP_PORT" in env:
        return {int(env["GF_SERVER_HTTP_PORT"])}
    if PREFIX + "METRICS_PORT" in env:
        return {int(env[PREFIX + "METRICS_PORT"])}
    flags = " ".join(service["command"])
    return {int(p) for p in re.findall(r"--(?:\w+-port=|web\.listen-address=\S+:)(\d+)", flags)}


def mounts(name: str) -> list[tuple[str, str, str]]:
    return [
        (parts[0], parts[1], parts[2] if len(parts) > 2 else "rw")
        for parts in (volume.split(":") for volume in SERVICES[name].get("volumes", []))
    ]


def unknown_names(program: str) -> set[str]:
    """What a program uses and neither imports nor is given."""
    nodes = list(ast.walk(ast.parse(program)))
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    return {n.id for n in nodes if isinstance(n, ast.Name)} - imported - set(dir(builtins))


def schema_errors(document: Any) -> list[str]:
    """Against the Compose specification that check-jsonschema carries."""
    spec = importlib.util.find_spec("check_jsonschema")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0]) / "builtin_schemas" / "vendor"
    schema = json.loads((folder / "compose-spec.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    return [error.message for error in validator.iter_errors(document)]


@pytest.mark.parametrize("path", [COMPOSE, GPU], ids=lambda p: cast("Path", p).name)
def test_the_file_is_what_the_compose_specification_asks_for(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    assert schema_errors(document) == []
    document["services"]["triton"]["imagge"] = "x"
    assert schema_errors(document) != []


def test_the_gpu_file_only_adds_to_a_service_that_there_is() -> None:
    added = yaml.safe_load(GPU.read_text())["services"]
    assert {name: set(part) for name, part in added.items()} == {"triton": {"deploy"}}
    assert "triton" in SERVICES


def test_every_meter_variable_is_one_that_is_read() -> None:
    settings = {PREFIX + field.upper() for field in Settings.model_fields}
    emitter = {
        name
        for room in ("triton_models", "metering")
        for file in (REPO / room).rglob("*.py")
        for name in re.findall(r"METER_[A-Z_]+", file.read_text())
    }
    for name in SERVICES:
        given = {key for key in environment(name) if key.startswith(PREFIX)}
        assert given <= (emitter if name == "triton" else settings), name
        assert not given or name in METERED


@pytest.mark.parametrize("name", OWN)
def test_the_settings_of_a_process_can_be_read_from_its_environment(name: str) -> None:
    settings = Settings.from_env(environment(name))
    assert settings.metrics_host == "0.0.0.0"  # noqa: S104  # inside its container
    assert settings.metrics_port in listens_on(name)
    assert settings.webhooks == ()
    if "clickhouse" in settings.clickhouse:
        assert settings.clickhouse_password.get_secret_value() == "given"


def test_every_topic_that_is_named_is_one_of_the_projects() -> None:
    files = [COMPOSE, *(f for f in (REPO / "deploy").rglob("*") if f.is_file())]
    text = "\n".join(f.read_text() for f in files)
    assert set(re.findall(r"\b(?:usage|cost)\.\w+\.v\d+\b", text)) <= {t.name for t in TOPICS}


@every_service
def test_every_address_is_a_service_on_a_port_that_it_listens_on(name: str) -> None:
    service = SERVICES[name]
    parts = [service.get(k) for k in ("environment", "command", "healthcheck")]
    for text in texts(parts):
        for host, port in _ADDRESS.findall(text):
            if host in ("", "0.0.0.0", *_LOOPBACK):  # noqa: S104  # read, not bound
                assert int(port) in listens_on(name), text
            else:
                assert host in SERVICES, text
                assert int(port) in listens_on(host), text


@every_service
def test_a_published_port_is_bound_to_the_loopback_and_open_inside(name: str) -> None:
    service = SERVICES[name]
    for published in service.get("ports", []):
        host, _, target = re.fullmatch(r"(.+):(\d+):(\d+)", published).groups()  # type: ignore[union-attr]  # a port that does not match fails here
        assert host == "127.0.0.1"
        assert int(target) in listens_on(name)
    exposed = {int(port) for port in service.get("expose", [])}
    assert exposed == listens_on(name)


def test_no_two_services_publish_the_same_port() -> None:
    ports = [p.split(":")[1] for s in SERVICES.values() for p in s.get("ports", [])]
    assert len(ports) == len(set(ports))


@pytest.mark.parametrize("name", OWN)
def test_a_process_runs_a_module_that_there_is(name: str) -> None:
    program, *rest = SERVICES[name]["command"]
    if program == "meter":
        group, command, *options = rest
        found = command_of(group).commands[command]  # type: ignore[attr-defined]  # a group
        assert set(options) <= {o for p in found.params for o in p.opts}
        return
    assert (program, rest[0]) == ("python", "-m")
    assert importlib.util.find_spec(f"{rest[1]}.__main__") is not None


@pytest.mark.parametrize("name", [n for n in OWN if n != "topics"])
def test_a_process_is_asked_whether_its_event_loop_runs_by_a_program_that_works(name: str) -> None:
    *_, program = SERVICES[name]["healthcheck"]["test"]
    assert unknown_names(program) == set()
    assert f":{environment(name)['METER_METRICS_PORT']}{HEALTH_PATH}" in program


def test_the_processes_of_the_project_are_all_there() -> None:
    modules = {SERVICES[name]["command"][-1] for name in OWN if name != "topics"}
    assert modules == {service.module for service in stack.SERVICES}


@every_service
def test_a_secret_is_asked_for_and_never_written_down(name: str) -> None:
    for key, value in RAW["services"][name].get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|TOKEN|API_KEY", key):
            assert re.fullmatch(r"\$\{\w+:(\?[^}]+|-)\}", str(value)), key
    assert not any(re.search(r"//[^/\s:]+:[^/\s@]+@", t) for t in texts(RAW["services"][name]))


def test_the_example_names_every_variable_and_holds_no_password() -> None:
    lines = [line for line in ENV_EXAMPLE.read_text().splitlines() if re.match(r"\w", line)]
    example = dict(line.split("=", 1) for line in lines)
    found = {m[1]: m for t in texts(RAW) for m in _VARIABLE.finditer(t) if m[1]}
    assert set(example) == set(found)
    for variable, match in found.items():
        assert example[variable] == ("" if match[2] == "?" else match[3]), variable


@every_service
def test_a_service_is_pinned_watched_restarted_and_confined(name: str) -> None:
    service = SERVICES[name]
    tag = service["image"].rpartition(":")[2]
    assert "build" in service if tag == "local" else re.match(r"v?\d+\.\d+", tag)
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged", False)
    if name == "topics":
        assert service["restart"].startswith("on-failure")
        return
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    # apache/kafka has a user of its own that is not root, and writes its configuration.
    assert name == "kafka" or service["user"].split(":")[0] not in ("0", "root")
    assert name in ("kafka", "grafana") or service["read_only"] is True


@every_service
def test_what_a_service_waits_for_can_come_about(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        other = SERVICES[needed]
        if how["condition"] == "service_completed_successfully":
            assert not other["restart"].startswith(("always", "unless"))
        else:
            assert how["condition"] == "service_healthy"
            assert not other["healthcheck"].get("disable", False)


@every_service
def test_a_mount_is_a_declared_volume_or_a_file_of_the_project_that_is_only_read(name: str) -> None:
    for source, target, mode in mounts(name):
        assert target.startswith("/")
        if source.startswith("."):
            assert (REPO / source).exists(), source
            assert mode == "ro"
        else:
            assert source in DOCUMENT["volumes"]
    assert set(SERVICES[name].get("secrets", [])) <= set(DOCUMENT["secrets"])


def test_every_volume_is_used() -> None:
    used = {source for name in SERVICES for source, _, _ in mounts(name)}
    assert set(DOCUMENT["volumes"]) <= used


@pytest.mark.parametrize("name", sorted(METERED))
def test_what_a_process_reads_and_writes_lies_on_a_mount(name: str) -> None:
    targets = {target: (source, mode) for source, target, mode in mounts(name)}
    for key, value in environment(name).items():
        if key.endswith("_DIR"):
            assert targets[value][1] == "rw", key
    book = environment(name).get("METER_PRICE_BOOK")
    if book is not None:
        source, _ = targets[str(Path(book).parent)]
        assert (REPO / source / Path(book).name).exists()


def test_triton_shipper_and_sentinel_share_the_usage_log_as_one_user() -> None:
    sharing = {
        name: (SERVICES[name]["user"], target, environment(name)["METER_LOG_DIR"])
        for name in SERVICES
        for source, target, mode in mounts(name)
        if source == USAGE_LOG and mode == "rw"
    }
    assert set(sharing) == {"triton", "shipper", "sentinel"}
    (user, target, log_dir) = sharing["triton"]
    assert set(sharing.values()) == {(user, target, log_dir)}
    assert target == log_dir
    for file in ("app.Dockerfile", "triton.Dockerfile"):
        uid = user.split(":")[0]
        text = (REPO / "deploy" / file).read_text().replace("\\\n", " ")
        assert re.search(rf"install -d -o {uid} -g {uid} [^\n]*{re.escape(log_dir)}\b", text), file


def test_triton_is_started_as_on_one_machine() -> None:
    here = Path("/x")
    recipe = triton_recipe(
        install=TritonInstall(here, "3.12", here, here, here, here, here),
        folder=here,
        models={},
        load=MODELS,
        ports=TritonPorts(8000, 8001, 8002),
        shm="meter_",
        extra_env={},
    )
    # Where a container's network, files and devices make the difference.
    own = r"--(model-repository|backend-|\w+-(address|port)|exit-timeout|allow-gpu)"
    command = SERVICES["triton"]["command"]
    wanted, given = (
        sorted(flag for flag in argv[1:] if not re.match(own, flag))
        for argv in (recipe.argv, command)
    )
    assert given == wanted
    grace_s = int(SERVICES["triton"]["stop_grace_period"].removesuffix("s"))
    exit_s = next(int(f.split("=")[1]) for f in command if f.startswith("--exit-timeout-secs="))
    assert grace_s > exit_s


def test_triton_is_whole_with_as_many_python_processes_as_models_have_instances() -> None:
    check = SERVICES["triton"]["healthcheck"]["test"][1]
    instances = 0
    for model in MODELS:
        config = (REPO / "triton_models" / model / "config.pbtxt").read_text()
        instances += sum(map(int, re.findall(r"instance_group \[ \{ count: (\d+)", config)))
    assert re.findall(r"-ge (\d+)", check) == [str(instances)]


def test_kafka_is_set_up_as_on_one_machine() -> None:
    here = dict(line.split("=", 1) for line in server_properties(1, 2).splitlines())
    given = {
        key.removeprefix("KAFKA_").lower().replace("_", "."): value
        for key, value in environment("kafka").items()
    }
    same = {k for k in given if re.search(r"replication|isr|partitions|process\.roles|node\.id", k)}
    assert len(same) > 5
    assert {k: given[k] for k in same} == {k: here[k] for k in same}
    replicas = {k for k in here if "replication" in k or k.endswith(("isr", "insync.replicas"))}
    assert replicas <= set(given)
    advertised = dict(a.split("://") for a in given["advertised.listeners"].split(","))
    for listener, address in advertised.items():
        assert f"{listener}://:{address.rpartition(':')[2]}" in given["listeners"].split(",")

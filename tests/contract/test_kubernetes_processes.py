"""deploy/kubernetes agrees with the code: commands, settings, secrets, files, images."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from streams.cli.main import command_of
from streams.settings import PREFIX, Settings
from streams.stack import services as stack
from tests.contract.deployed import (
    BUILT,
    COMPOSE,
    OWN_IMAGE,
    PASSWORDS,
    REPO,
    ROOT,
    TRITON_IMAGE,
    environment,
    every_container,
    every_kustomization,
    image,
    named,
    ports,
)
from tests.contract.kustomize import Resource, containers, pod_of

# --- the code ------------------------------------------------------------------------------------


@every_container
def test_a_container_runs_what_there_is(
    name: str, resource: Resource, container: dict[str, Any]
) -> None:
    program, *rest = container["command"]
    if image(container) == TRITON_IMAGE:
        own = [flag.replace("$$", "$") for flag in COMPOSE["triton"]["command"]]
        assert container["command"] == own
    elif program == "meter":
        group, command, *options = rest
        found = command_of(group).commands[command]  # type: ignore[attr-defined]  # a group
        flags = {o for o in options if o.startswith("--")}
        assert flags <= {o for p in found.params for o in p.opts}
    else:
        assert (program, rest[0]) == ("python", "-m")
        assert importlib.util.find_spec(f"{rest[1]}.__main__") is not None


def test_the_processes_of_the_project_are_all_there() -> None:
    commands = [c["command"] for r in BUILT["overlays/triton"] for c in containers(r)]
    modules = {command[-1] for command in commands if command[0] == "python"}
    assert modules == {service.module for service in stack.SERVICES}
    base = {c["command"][-1] for r in BUILT["base"] for c in containers(r)}
    assert {"streams.worker", "streams.detection", "streams.reconciler"} <= base


@every_container
def test_every_variable_is_one_that_is_read_and_can_be(
    name: str, resource: Resource, container: dict[str, Any]
) -> None:
    env = environment(name, container)
    if image(container) == TRITON_IMAGE:
        assert set(env) == set(COMPOSE["triton"]["environment"])
        return
    assert {key for key in env if key.startswith(PREFIX)} == set(env)
    assert set(env) <= {PREFIX + field.upper() for field in Settings.model_fields}
    settings = Settings.from_env(env)
    assert settings.kafka != Settings().kafka
    if resource["kind"] != "Job":
        assert settings.metrics_host == "0.0.0.0"  # noqa: S104  # inside its pod
        assert ports(container) == {settings.metrics_port}


@every_container
def test_a_process_has_every_variable_that_it_has_in_the_compose_file(
    name: str, resource: Resource, container: dict[str, Any]
) -> None:
    """But those whose default is as good, and those that say where Alertmanager is."""
    module = container["command"][-1]
    same = [s for s in COMPOSE.values() if s.get("command", [""])[-1] == module]
    optional = {"METER_ALERTMANAGER", "METER_ALERT_FLOOR_USD_PER_HOUR", "METER_RECONCILE_GRACE_S"}
    for service in same:
        assert set(service["environment"]) - optional <= set(environment(name, container))


@every_container
def test_a_secret_is_referred_to_and_never_written_down(
    name: str, resource: Resource, container: dict[str, Any]
) -> None:
    for key in (k for k in environment(name, container) if PASSWORDS.search(k)):
        (variable,) = (v for v in container["env"] if v["name"] == key)
        assert "secretKeyRef" in variable["valueFrom"], key


@every_kustomization
def test_no_secret_is_made_and_each_that_is_wanted_is_told_of(name: str) -> None:
    assert not [r for r in BUILT[name] if r["kind"] == "Secret"]
    text = yaml.safe_dump_all(BUILT[name])
    wanted = set(re.findall(r"secretKeyRef:\n\s+key: \S+\n\s+name: (\S+)", text))
    wanted |= set(re.findall(r"secretName: (\S+)", text))
    assert wanted
    readme = (ROOT / "README.md").read_text()
    assert all(f"`{secret}`" in readme for secret in wanted)


@every_container
def test_what_a_process_reads_and_writes_lies_on_a_mount(
    name: str, resource: Resource, container: dict[str, Any]
) -> None:
    mounted = {m["mountPath"]: m for m in container["volumeMounts"]}
    volumes = {v["name"]: v for v in (pod_of(resource) or {})["volumes"]}
    assert {m["name"] for m in mounted.values()} <= set(volumes)
    for key, value in environment(name, container).items():
        if key.endswith("_DIR"):
            assert "emptyDir" in volumes[mounted[value]["name"]], key
        if key in ("METER_PRICE_BOOK", "METER_KAFKA_CA_FILE"):
            volume = volumes[mounted[str(Path(value).parent)]["name"]]
            if "configMap" in volume:
                config = named(name, "ConfigMap", volume["configMap"]["name"])
                assert Path(value).name in config["data"], key
            else:
                assert Path(value).name in {i["path"] for i in volume["secret"]["items"]}, key
    for mount in mounted.values():
        if "emptyDir" not in volumes[mount["name"]]:
            assert mount["readOnly"] is True


def test_the_price_book_is_the_projects() -> None:
    own, base = (p / "prices.toml" for p in (REPO / "deploy", ROOT / "base"))
    assert own.read_bytes() == base.read_bytes()


def test_images_have_the_projects_version() -> None:
    version = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["version"]
    images = {c["image"] for rs in BUILT.values() for r in rs for c in containers(r)}
    assert images == {f"{OWN_IMAGE}:{version}", f"{TRITON_IMAGE}:{version}"}

"""What deploy/kubernetes comes to, and what its tests ask of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.kustomize import Resource, build, containers, pod_of

REPO = Path(__file__).parents[2]
ROOT = REPO / "deploy" / "kubernetes"
KUSTOMIZATIONS = ["base", "overlays/production", "overlays/triton"]
COMPONENTS = ["components/keda", "components/monitoring"]
OWN_IMAGE, TRITON_IMAGE = "inference-meter", "inference-meter-triton"
VERSIONS = ["1.33", "1.37"]
PASSWORDS = re.compile(r"PASSWORD|SECRET|TOKEN|WEBHOOKS")

BUILT: dict[str, list[Resource]] = {name: build(ROOT / name) for name in KUSTOMIZATIONS}
COMPOSE: dict[str, Any] = yaml.safe_load((REPO / "docker-compose.yml").read_text())["services"]
PODS = [
    pytest.param(name, resource, id=f"{name}:{resource['metadata']['name']}")
    for name, resources in BUILT.items()
    for resource in resources
    if pod_of(resource) is not None
]
CONTAINERS = [
    pytest.param(name, resource, container, id=f"{name}:{container['name']}")
    for name, resources in BUILT.items()
    for resource in resources
    for container in containers(resource)
]

every_kustomization = pytest.mark.parametrize("name", KUSTOMIZATIONS)
every_pod = pytest.mark.parametrize(("name", "resource"), PODS)
every_container = pytest.mark.parametrize(("name", "resource", "container"), CONTAINERS)


def named(name: str, kind: str, called: str) -> Resource:
    (found,) = (r for r in BUILT[name] if r["kind"] == kind and r["metadata"]["name"] == called)
    return found


def environment(name: str, container: dict[str, Any]) -> dict[str, str]:
    """What the process sees; a secret's value is ``given``."""
    env: dict[str, str] = {}
    for source in container.get("envFrom", []):
        env |= named(name, "ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in container.get("env", []):
        env[variable["name"]] = variable.get("value", "given")
    return env


def image(container: dict[str, Any]) -> str:
    return str(container["image"]).partition(":")[0]


def ports(container: dict[str, Any]) -> set[int]:
    return {port["containerPort"] for port in container.get("ports", [])}


def labels(resource: Resource) -> dict[str, str]:
    found: dict[str, str] = resource["spec"]["template"]["metadata"]["labels"]
    return found

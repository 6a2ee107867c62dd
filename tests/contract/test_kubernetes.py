"""deploy/kubernetes agrees with Kubernetes' own schemas and with itself, and asks for no rights."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from sinks.health import HEALTH_PATH
from streams.settings import Settings
from streams.topics import USAGE_BATCHES
from tests.contract.deployed import (
    BUILT,
    COMPONENTS,
    KUSTOMIZATIONS,
    OWN_IMAGE,
    REPO,
    ROOT,
    VERSIONS,
    environment,
    every_container,
    every_kustomization,
    every_pod,
    image,
    labels,
    named,
    ports,
)
from tests.contract.kustomize import Resource, containers, pod_of

# --- Kubernetes ----------------------------------------------------------------------------------


@every_kustomization
@pytest.mark.parametrize("version", VERSIONS)
def test_every_resource_is_what_kubernetes_asks_for(name: str, version: str) -> None:
    for resource in BUILT[name]:
        kubernetes_validate.validate(resource, version, strict=True)


def test_what_kubernetes_does_not_know_would_be_seen() -> None:
    worker = yaml.safe_load((ROOT / "base" / "worker.yaml").read_text())
    worker["spec"]["template"]["spec"]["containers"][0]["imagge"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(worker, VERSIONS[-1], strict=True)


@every_kustomization
def test_kustomize_itself_where_there_is_one_makes_the_same_of_it(name: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return
    told = subprocess.run(
        [kubectl, "kustomize", ROOT / name], capture_output=True, text=True, check=True
    ).stdout
    assert comparable(list(yaml.safe_load_all(told))) == comparable(BUILT[name])


def comparable(resources: list[Resource]) -> list[str]:
    """Without order where there is none, and without the hashes of generated names."""
    texts = [json.dumps(_unordered(resource), sort_keys=True) for resource in resources]
    return sorted(re.sub(r"(meter-settings)-\w{10}", r"\1", text) for text in texts)


def _unordered(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _unordered(value) for key, value in node.items()}
    if isinstance(node, list):
        parts = [_unordered(part) for part in node]
        if all(isinstance(part, dict) for part in parts):
            return sorted(parts, key=lambda part: json.dumps(part, sort_keys=True))
        return parts
    return node


@pytest.mark.parametrize("name", KUSTOMIZATIONS + COMPONENTS)
def test_every_file_of_a_folder_is_named_in_its_kustomization(name: str) -> None:
    document = yaml.safe_load((ROOT / name / "kustomization.yaml").read_text())
    used = {path for path in document.get("resources", []) if path.endswith(".yaml")}
    used |= {patch["path"] for patch in document.get("patches", [])}
    used |= {f for g in document.get("configMapGenerator", []) for f in g.get("files", [])}
    assert {file.name for file in (ROOT / name).iterdir()} - {"kustomization.yaml"} == used


@every_pod
def test_a_selector_finds_its_pods_and_no_others(name: str, resource: Resource) -> None:
    if resource["kind"] != "Job":
        wanted = resource["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= labels(resource).items()
        others = [r for r in BUILT[name] if pod_of(r) is not None and r is not resource]
        assert not [r for r in others if wanted.items() <= labels(r).items()]
    assert resource["metadata"]["labels"] == labels(resource)


@every_kustomization
def test_policies_budgets_and_services_find_pods_that_there_are(name: str) -> None:
    pods = [labels(r) for r in BUILT[name] if pod_of(r) is not None]
    for resource in BUILT[name]:
        spec = resource.get("spec", {})
        selector = spec.get("podSelector") or (
            spec.get("selector") if resource["kind"] == "PodDisruptionBudget" else None
        )
        wanted = selector["matchLabels"] if selector else None
        if resource["kind"] == "Service":
            wanted = spec["selector"]
        if wanted is not None:
            assert any(wanted.items() <= p.items() for p in pods), resource["metadata"]["name"]


# --- who may what --------------------------------------------------------------------------------


@every_pod
def test_a_pod_has_no_rights_of_any_kind(name: str, resource: Resource) -> None:
    pod = pod_of(resource) or {}
    assert pod["automountServiceAccountToken"] is False
    account = named(name, "ServiceAccount", pod["serviceAccountName"])
    assert account["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 1000  # of both images
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in containers(resource):
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in rights
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


@every_container
def test_a_probe_asks_a_port_that_is_open(
    name: str, resource: Resource, container: dict[str, Any]
) -> None:
    open_ports = {p["name"] for p in container.get("ports", [])} | ports(container)
    probes = [container[k] for k in container if k.endswith("Probe")]
    assert bool(probes) == (resource["kind"] != "Job")
    assert all(probe["httpGet"]["port"] in open_ports for probe in probes)
    own = container["command"][0] == "python"
    assert not own or "livenessProbe" in container
    assert not own or {probe["httpGet"]["path"] for probe in probes} == {HEALTH_PATH}


@every_kustomization
def test_the_policies_let_through_what_the_settings_name(name: str) -> None:
    policies = {
        r["metadata"]["name"]: r["spec"] for r in BUILT[name] if r["kind"] == "NetworkPolicy"
    }

    def out(policy: str) -> set[int]:
        return {p["port"] for rule in policies[policy]["egress"] for p in rule["ports"]}

    for resource in BUILT[name]:
        for container in containers(resource):
            if image(container) != OWN_IMAGE:
                continue
            env = environment(name, container)
            wanted = [*env["METER_KAFKA"].split(","), env["METER_CLICKHOUSE"]]
            assert {int(address.rpartition(":")[2]) for address in wanted} <= out("meter")
    assert 443 in out("meter-detector")
    assert 443 not in out("meter")
    scraped = {
        p["port"] for spec in policies.values() for r in spec.get("ingress", []) for p in r["ports"]
    }
    for resource in BUILT[name]:
        for container in containers(resource):
            assert ports(container) <= scraped, container["name"]


def test_in_production_everything_is_encrypted_and_known_by_name() -> None:
    for resource in BUILT["overlays/production"]:
        for container in containers(resource):
            settings = Settings.from_env(environment("overlays/production", container))
            assert settings.kafka_security_protocol == "SASL_SSL"
            assert settings.kafka_password.get_secret_value() == "given"
            assert settings.kafka_username == "given"
            assert settings.clickhouse.startswith("https://")
    assert named("overlays/production", "Deployment", "meter-worker")["spec"]["replicas"] == 3


@pytest.mark.parametrize("called", ["meter-detector", "meter-reconciler"])
def test_whoever_must_see_everything_is_never_there_twice(called: str) -> None:
    spec = named("base", "Deployment", called)["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


# --- Triton --------------------------------------------------------------------------------------


def test_triton_its_shipper_and_its_sentinel_share_the_log_and_end_in_the_right_order() -> None:
    pod = pod_of(named("overlays/triton", "Deployment", "triton")) or {}
    sidecars = {c["name"]: c for c in pod["initContainers"]}
    assert set(sidecars) == {"shipper", "sentinel"}
    assert all(c["restartPolicy"] == "Always" for c in sidecars.values())
    (triton,) = pod["containers"]
    everyone = [triton, *sidecars.values()]
    logs = {environment("overlays/triton", c)["METER_LOG_DIR"] for c in everyone}
    (log_dir,) = logs
    assert {
        next(m["name"] for m in c["volumeMounts"] if m["mountPath"] == log_dir) for c in everyone
    } == {"usage-log"}
    volumes = {v["name"]: v for v in pod["volumes"]}
    size = volumes["usage-log"]["emptyDir"]["sizeLimit"]
    caps = {environment("overlays/triton", c).get("METER_LOG_MAX_BYTES") for c in everyone[:2]}
    (cap,) = caps
    assert int(str(cap)) < int(size.removesuffix("Gi")) * 1024**3
    exit_s = next(
        int(f.split("=")[1]) for f in triton["command"] if f.startswith("--exit-timeout-secs=")
    )
    assert pod["terminationGracePeriodSeconds"] >= exit_s + 30
    taken = [port for c in everyone for port in ports(c)]
    assert len(taken) == len(set(taken))
    sentinel = environment("overlays/triton", sidecars["sentinel"])
    for variable in ("METER_TRITON_GRPC", "METER_TRITON_METRICS"):
        host, port = sentinel[variable].split(":")
        assert host == "127.0.0.1"
        assert int(port) in ports(triton)


# --- components ----------------------------------------------------------------------------------


def test_the_scaler_counts_what_the_workers_have_not_yet_read() -> None:
    scaled = yaml.safe_load((ROOT / "components/keda/scaled-object.yaml").read_text())["spec"]
    target = scaled["scaleTargetRef"]
    assert named("base", target["kind"], target["name"])
    (trigger,) = scaled["triggers"]
    assert trigger["metadata"]["topic"] == USAGE_BATCHES
    group = trigger["metadata"]["consumerGroup"]
    code = "".join(f.read_text() for f in (REPO / "streams" / "worker").glob("*.py"))
    assert f'"{group}"' in code


def test_the_monitor_asks_a_port_that_every_process_names() -> None:
    spec = yaml.safe_load((ROOT / "components/monitoring/pod-monitor.yaml").read_text())["spec"]
    asked = {endpoint["port"] for endpoint in spec["podMetricsEndpoints"]}
    wanted = spec["selector"]["matchLabels"]
    for resource in BUILT["overlays/triton"]:
        if pod_of(resource) is None or resource["kind"] == "Job":
            continue
        assert wanted.items() <= labels(resource).items()
        for container in containers(resource):
            if image(container) == OWN_IMAGE:
                assert {p["name"] for p in container["ports"]} <= asked

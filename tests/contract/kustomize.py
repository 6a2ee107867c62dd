"""As much of ``kustomize build`` as deploy/kubernetes uses; what else a file asks for is an error.

Merging is the strategic one for lists whose parts have a name or a mount path. What comes out is
compared with ``kubectl kustomize`` where there is one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]

_KNOWN = {
    "apiVersion", "kind", "namespace", "resources", "components", "images", "replicas",
    "configMapGenerator", "patches",
}  # fmt: skip
_CLUSTER_WIDE = {"Namespace"}
_MERGED_BY = {"volumeMounts": "mountPath", "ports": "containerPort"}


def build(folder: Path) -> list[Resource]:
    """All resources of the kustomization in ``folder``; generated names end with a hash."""
    return _hashed(_built(folder, []))


def _built(folder: Path, given: list[Resource]) -> list[Resource]:
    document = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(document) <= _KNOWN, set(document) - _KNOWN
    found = list(given)
    for path in document.get("resources", []):
        at = folder / path
        found += _built(at, []) if at.is_dir() else list(yaml.safe_load_all(at.read_text()))
    for generated in document.get("configMapGenerator", []):
        _generate(folder, generated, found)
    for patch in document.get("patches", []):
        assert set(patch) == {"path"}
        part = yaml.safe_load((folder / patch["path"]).read_text())
        target = _named(found, part["kind"], part["metadata"]["name"])
        found[found.index(target)] = _merged(target, part)
    for replica in document.get("replicas", []):
        _named(found, "Deployment", replica["name"])["spec"]["replicas"] = replica["count"]
    for image in document.get("images", []):
        for container in (c for r in found for c in containers(r)):
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    if "namespace" in document:
        for resource in found:
            if resource["kind"] not in _CLUSTER_WIDE:
                resource["metadata"]["namespace"] = document["namespace"]
    for path in document.get("components", []):
        found = _built(folder / path, found)
    return found


def pod_of(resource: Resource) -> dict[str, Any] | None:
    """The pod's specification; ``None`` where there is none."""
    template = resource.get("spec", {}).get("template")
    return None if template is None else template["spec"]


def containers(resource: Resource) -> list[dict[str, Any]]:
    pod = pod_of(resource) or {}
    return [*pod.get("initContainers", []), *pod.get("containers", [])]


def _generate(folder: Path, generated: dict[str, Any], found: list[Resource]) -> None:
    data = dict(literal.split("=", 1) for literal in generated.get("literals", []))
    data |= {file: (folder / file).read_text() for file in generated.get("files", [])}
    if generated.get("behavior") == "merge":
        _named(found, "ConfigMap", generated["name"])["data"].update(data)
        return
    hashed = not generated.get("options", {}).get("disableNameSuffixHash", False)
    found.append(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": generated["name"]} | ({"hashed": True} if hashed else {}),
            "data": data,
        }
    )


def _hashed(resources: list[Resource]) -> list[Resource]:
    """Generated names with a hash of their data, also where pods refer to them."""
    names: dict[str, str] = {}
    for resource in resources:
        if resource["metadata"].pop("hashed", False):
            content = json.dumps(resource["data"], sort_keys=True).encode()
            name = resource["metadata"]["name"]
            names[name] = f"{name}-{hashlib.sha256(content).hexdigest()[:10]}"
            resource["metadata"]["name"] = names[name]
    for container in (c for r in resources for c in containers(r)):
        for source in container.get("envFrom", []):
            reference = source["configMapRef"]
            reference["name"] = names.get(reference["name"], reference["name"])
    return resources


def _named(resources: list[Resource], kind: str, name: str) -> Resource:
    (found,) = (r for r in resources if r["kind"] == kind and r["metadata"]["name"] == name)
    return found


def _merged(whole: Any, part: Any, field: str = "") -> Any:
    if isinstance(whole, dict) and isinstance(part, dict):
        added = {k: v for k, v in part.items() if k not in whole}
        return {k: _merged(v, part[k], k) if k in part else v for k, v in whole.items()} | added
    key = _MERGED_BY.get(field, "name")
    keyed = isinstance(whole, list) and all(isinstance(p, dict) and key in p for p in whole + part)
    if not keyed:
        return part
    by_key = {p[key]: p for p in part}
    kept = [_merged(p, by_key.pop(p[key])) if p[key] in by_key else p for p in whole]
    return [*by_key.values(), *kept]

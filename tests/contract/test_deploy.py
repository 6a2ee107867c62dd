"""The images, their locks and users, and the project's own papers agree with the code."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

REPO = Path(__file__).parents[2]
DEPLOY = REPO / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))
SERVICES: dict[str, Any] = yaml.safe_load((REPO / "docker-compose.yml").read_text())["services"]

every_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.stem)


def test_clickhouse_has_two_users_whose_passwords_come_from_the_environment() -> None:
    root = ET.parse(DEPLOY / "clickhouse" / "users.xml").getroot()  # noqa: S314  # our own file
    users = {user.tag: user for user in root.iterfind("users/*")}
    assert users.pop("default").attrib == {"remove": "remove"}
    assert set(users) == {
        SERVICES["worker"]["environment"]["METER_CLICKHOUSE_USER"],
        "grafana",
    }
    database = SERVICES["worker"]["environment"]["METER_CLICKHOUSE_DATABASE"]
    for name, user in users.items():
        password = user.find("password")
        assert password is not None
        assert password.text is None
        assert password.attrib["from_env"] in SERVICES["clickhouse"]["environment"]
        grants = [grant.text or "" for grant in user.iterfind("grants/query")]
        assert all(grant.endswith(f" ON {database}.*") for grant in grants), name
    grafana = [grant.text for grant in users["grafana"].iterfind("grants/query")]
    assert grafana == [f"GRANT SELECT ON {database}.*"]
    assert root.findtext(f"profiles/{users['grafana'].findtext('profile')}/readonly") == "2"


def ignored(path: str) -> bool:
    """As .dockerignore has it: the last pattern that fits the path or a folder of it decides."""
    parts = path.split("/")
    names = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    verdict = False
    for line in (REPO / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!").removeprefix("**/")
        if pattern and not pattern.startswith("#"):
            fits = any(fnmatch.fnmatch(name, pattern) for name in [*names, parts[-1]])
            verdict = (not line.startswith("!")) if fits else verdict
    return verdict


@every_dockerfile
def test_a_dockerfile_copies_what_there_is_and_runs_as_nobody_special(path: Path) -> None:
    text = re.sub(r"\\\n", " ", path.read_text())
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.M)
        for source in line.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (REPO / source).exists(), source
        assert not ignored(source), source
    bases = re.findall(r"^FROM (\S+)", text, re.M)
    assert all(re.search(r":(\d|\$\{TRITON_TAG\})", base) for base in bases)
    assert re.findall(r"^USER (\S+)", text, re.M)[-1] == "1000:1000"
    assert path.name in {
        Path(service["build"]["dockerfile"]).name
        for service in SERVICES.values()
        if "build" in service
    }


@pytest.mark.parametrize(
    "path", [".env", ".git/config", "deploy/env.example", "streams/__pycache__/x.pyc", ".venv/bin"]
)
def test_nothing_else_goes_into_an_image(path: str) -> None:
    assert ignored(path)


def test_the_projects_packages_are_all_in_its_image() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    text = (DEPLOY / "app.Dockerfile").read_text()
    for package in packages:
        assert f"COPY {package.rstrip('*')} " in text


def pins(path: Path) -> dict[str, tuple[str, set[str]]]:
    """Per package of a lock file: its version and its hashes."""
    found = {}
    for block in re.split(r"\n(?=\S)", path.read_text()):
        if match := re.match(r"([a-z0-9-]+)==(\S+)", block):
            found[match[1]] = (match[2], set(re.findall(r"--hash=(\S+)", block)))
    return found


def test_the_models_have_the_same_packages_in_the_image_as_beside_it() -> None:
    image, beside = pins(DEPLOY / "triton.txt"), pins(REPO / "locks" / "triton.txt")
    assert len(image) > 10
    assert image.items() <= beside.items()
    assert all(hashes for _, hashes in image.values())
    assert image["numpy"][0].startswith("1.")
    asked = [
        {line for line in path.read_text().splitlines() if line and not line.startswith("#")}
        for path in (DEPLOY / "triton.in", REPO / "locks" / "triton.in")
    ]
    assert {line for line in asked[1] - asked[0]} == {
        line for line in asked[1] if line.startswith("nvidia-pytriton")
    }
    assert asked[0] < asked[1]


def test_hooks_call_only_what_the_makefile_calls_and_fetch_nothing() -> None:
    (repo,) = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    for hook in repo["hooks"]:
        assert hook["language"] == "system"
        program, *arguments = hook["entry"].split()
        assert program.startswith(".venv/bin/")
        assert all((REPO / a).exists() for a in arguments if a.startswith("tests/"))


def test_the_license_is_the_one_that_the_project_states() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    text = (REPO / project["license-files"][0]).read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_a_clickhouse_cluster_has_the_same_users_who_may_migrate_all_of_its_nodes() -> None:
    alone, cluster = (
        (DEPLOY / "clickhouse" / path).read_text() for path in ("users.xml", "cluster/users.xml")
    )
    grant = "                <query>GRANT CLUSTER ON *.*</query>\n"
    assert grant in cluster
    assert alone.partition("-->")[2] == cluster.replace(grant, "").partition("-->")[2]


def test_a_clickhouse_cluster_is_named_replicates_by_itself_and_keeps_its_secret_outside() -> None:
    root = ET.parse(DEPLOY / "clickhouse" / "cluster" / "cluster.xml").getroot()  # noqa: S314  # our own file
    assert {macro.tag for macro in root.iterfind("macros/*")} == {"shard", "replica"}
    (cluster,) = root.iterfind("remote_servers/*")
    assert cluster.tag == "meter"
    secret = cluster.find("secret")
    assert secret is not None
    assert secret.attrib
    assert not secret.text
    shards = cluster.findall("shard")
    assert len(shards) > 1
    for shard in shards:
        assert shard.findtext("internal_replication") == "true"
        assert len(shard.findall("replica")) >= 3  # a majority without one of them

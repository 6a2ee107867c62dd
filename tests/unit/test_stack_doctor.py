"""What the doctor says of a machine."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from streams import doctor
from streams.cli.doctor import shown
from streams.doctor import Check


def test_every_failed_check_says_how_to_get_it_and_no_passed_one_does(tmp_path: Path) -> None:
    found = doctor.checks(tmp_path / "not" / "made" / "yet")
    assert len({check.name for check in found}) == len(found)
    for check in found:
        assert check.found
        assert bool(check.how_to_get_it) is not check.ok
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(
    ("enough", "short"),
    [
        (doctor.check_python((3, 11, 0)), doctor.check_python((3, 10, 14))),
        (
            doctor.check_platform("linux", "x86_64"),
            doctor.check_platform("darwin", "arm64"),
        ),
        (doctor.check_cores(2), doctor.check_cores(1)),
        (doctor.check_memory(4 * doctor.GIB), doctor.check_memory(4 * doctor.GIB - 1)),
        (
            doctor.check_disk(Path("x"), 2 * doctor.GIB),
            doctor.check_disk(Path("x"), 2 * doctor.GIB - 1),
        ),
        (doctor.check_shm(64 * doctor.MIB), doctor.check_shm(64 * doctor.MIB - 1)),
        (doctor.check_chdb(True), doctor.check_chdb(False)),
    ],
)
def test_a_need_is_met_or_not(enough: doctor.Check, short: doctor.Check) -> None:
    assert enough.ok
    assert not short.ok
    assert short.needed


def test_docker_is_not_needed() -> None:
    absent = doctor.check_docker(None)
    assert not absent.ok
    assert not absent.needed


def test_an_environment_without_triton_is_named(tmp_path: Path) -> None:
    check = doctor.check_triton(tmp_path / "nothing")
    assert not check.ok
    assert str(tmp_path / "nothing") in check.found


def test_an_unusable_java_is_reported_and_not_raised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("METER_JAVA", str(tmp_path / "java"))
    check = doctor.check_java()
    assert not check.ok
    assert "METER_JAVA" in check.found


def test_jars_that_are_not_fetched_yet_are_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    check = doctor.check_jars()
    assert not check.ok
    assert not check.needed
    assert check.found.startswith("0 of ")


def test_at_80_columns_no_path_and_no_advice_is_cut_off() -> None:
    path = "/opt/" + "long-name/" * 9 + "jars"
    found = [
        Check("kafka jars", False, f"0 of 46 verified in {path}", "nothing to do", needed=False),
        Check("java", True, "Java 17", ""),
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(shown(found))
    text = console.export_text()
    assert path in "".join(text.split())
    assert "nothing to do" in text
    assert "…" not in text

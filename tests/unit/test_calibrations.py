"""The calibration file: what is written is read, and servers divide by what holds."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.apportion import EQUAL_SPLIT, AffineShapley, RunToLongest
from metering.calibrations import (
    CalibrationBook,
    CalibrationEntry,
    InvalidCalibration,
    parse_calibrations,
    read_calibrations,
    render_calibrations,
    write_calibrations,
)
from metering.errors import MeteringError
from triton_models.emitter.facts import Facts, Process, facts_of

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ps = st.integers(0, 2**63 - 1)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
entries = st.builds(
    CalibrationEntry,
    version=st.from_regex(r"[0-9A-Za-z._-]{1,64}", fullmatch=True),
    model=names,
    accelerator=names,
    rule=st.just("affine-shapley"),
    fitted_at=st.integers(0, 2**32).map(lambda s: NOON + timedelta(seconds=s % 10**9)),
    batches=st.integers(1, 2**40),
    outliers=st.integers(0, 2**40),
    r_squared=st.none() | st.floats(-1e6, 1),
    robust_r_squared=st.none() | st.floats(-1e6, 1),
    fixed_ps=ps,
    input_token_ps=ps,
    step_ps=st.none(),
    output_token_ps=ps,
)


def entry(**changes: object) -> CalibrationEntry:
    values: dict[str, object] = {
        "version": "2026-11-22.1",
        "model": "m",
        "accelerator": "H100",
        "rule": "affine-shapley",
        "fitted_at": NOON,
        "batches": 100,
        "fixed_ps": 1,
        "input_token_ps": 2,
        "output_token_ps": 3,
        **changes,
    }
    return CalibrationEntry.model_validate(values)


@given(st.lists(entries, max_size=4))
def test_what_is_written_is_read(given_entries: list[CalibrationEntry]) -> None:
    text = render_calibrations(CalibrationBook(given_entries))
    assert list(parse_calibrations(text, "text").entries) == given_entries


def test_the_last_entry_of_a_kind_holds_and_the_earlier_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "calibration.toml"
    write_calibrations(path, CalibrationBook([entry()]))
    later = entry(version="2026-11-23.1", fixed_ps=9)
    write_calibrations(path, read_calibrations(path).with_entries([later]))
    book = read_calibrations(path)
    assert book.latest("m", "H100", "affine-shapley") == later
    assert [e.version for e in book.entries] == ["2026-11-22.1", "2026-11-23.1"]
    assert book.latest("m", "H200", "affine-shapley") is None
    assert [p.name for p in tmp_path.iterdir()] == ["calibration.toml"]


def test_versions_of_a_day_count_up() -> None:
    book = CalibrationBook([entry(version=v) for v in ("2026-11-22.1", "2026-11-22.9", "by-hand")])
    assert book.next_version(NOON) == "2026-11-22.10"
    assert book.next_version(NOON + timedelta(days=1)) == "2026-11-23.1"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[[calibration]\n", "line 1"),
        ("calibration = 1\n", "entries are expected"),
        ("[[calibration]]\nmodel = 'm'\n", "version"),
        (render_calibrations(CalibrationBook([entry()])) + "fixed = 3\n", "fixed"),
        (render_calibrations(CalibrationBook([entry()])) + "step_ps = 3\n", "step_ps"),
        (render_calibrations(CalibrationBook([entry()])).replace("= 1\n", "= -1\n"), "fixed_ps"),
    ],
    ids=["no TOML", "no entries", "missing", "unknown", "of another rule", "negative"],
)
def test_a_file_that_is_wrong_is_refused_by_entry_and_field(text: str, named: str) -> None:
    with pytest.raises(InvalidCalibration, match=f"the-file.*{named}"):
        parse_calibrations(text, "the-file")


def facts(env: dict[str, str], **given_parameters: str) -> Facts:
    config = {"parameters": {k: {"string_value": v} for k, v in given_parameters.items()}}
    args = {
        "model_config": json.dumps(config),
        "model_name": "m",
        "model_version": "1",
        "model_instance_name": "m_0_0",
    }
    return facts_of(args, env, Process("host", "boot", "1-1"))


@pytest.fixture
def calibrated(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "calibration.toml"
    stepped = entry(rule="run-to-longest", step_ps=7, version="2026-11-22.2")
    write_calibrations(path, CalibrationBook([entry(), stepped]))
    return {"METER_CALIBRATION": str(path)}


def test_what_was_calibrated_goes_before_the_config_and_its_version_is_in_the_rules_id(
    calibrated: dict[str, str],
) -> None:
    rule = facts(calibrated, accelerator="H100", fixed_ps="55").rule
    assert rule == AffineShapley(1, 2, 3, "affine-shapley/2@2026-11-22.1")
    rule = facts(calibrated, accelerator="H100", apportionment="run-to-longest").rule
    assert rule == RunToLongest(1, 2, 7, 3, "run-to-longest/2@2026-11-22.2")


def test_a_calibration_of_another_accelerator_or_rule_changes_nothing(
    calibrated: dict[str, str],
) -> None:
    other = facts(calibrated, accelerator="H200", fixed_ps="55").rule
    assert other == AffineShapley(55, 0, 0, "affine-shapley/2@default")
    assert facts(calibrated, accelerator="H200").rule == EQUAL_SPLIT
    padded = facts(calibrated, accelerator="H100", apportionment="padded-length", fixed_ps="5")
    assert padded.rule.rule_id == "padded-length/2@default"
    equal = facts(calibrated, accelerator="H100", apportionment="equal-split")
    assert equal.rule.rule_id == "equal-split/2@default"


def test_a_rule_that_there_is_not_is_refused_by_name(calibrated: dict[str, str]) -> None:
    with pytest.raises(MeteringError, match="fairest"):
        facts(calibrated, apportionment="fairest")


@pytest.mark.parametrize("content", [None, "not TOML", b"\xff"], ids=["absent", "wrong", "bytes"])
def test_a_file_that_cannot_be_used_keeps_no_model_from_loading(
    tmp_path: Path, content: str | bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "calibration.toml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with caplog.at_level(logging.ERROR):
        rule = facts({"METER_CALIBRATION": str(path)}, fixed_ps="55").rule
    assert rule == AffineShapley(55, 0, 0, "affine-shapley/2@default")
    assert (str(path) in caplog.text) == (content is not None)

"""A board or a clock that fails costs a share, and never a batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from metering.occupancy_board import Board, read_boards
from triton_models.emitter.clock import MonotonicClock
from triton_models.emitter.device import Device
from triton_models.emitter.facts import Facts, Process, facts_of

ARGS = {
    "model_config": "{}",
    "model_name": "m",
    "model_version": "1",
    "model_instance_name": "m_0",
    "model_instance_kind": "GPU",
    "model_instance_device_id": "3",
}


@pytest.fixture
def facts() -> Facts:
    return facts_of(ARGS, {}, Process("host", "boot", "1"))


def test_a_batch_alone_on_its_device_has_all_of_it(tmp_path: Path, facts: Facts) -> None:
    told: list[str] = []
    device = Device.open(tmp_path, facts, MonotonicClock(), told.append)
    device.begin()
    had = device.end()
    assert (had.share_ns, had.device_ns) == (had.end_ns - had.start_ns, None)
    (reading,) = read_boards(tmp_path)
    assert (reading.device, reading.busy_ns, told) == ("gpu-3", had.share_ns, [])
    device.close()
    assert read_boards(tmp_path)[0].instances == ()


def test_without_a_board_wall_time_is_all_that_is_known(tmp_path: Path, facts: Facts) -> None:
    told: list[str] = []
    (tmp_path / ".devices").write_text("in the way")
    device = Device.open(tmp_path, facts, MonotonicClock(), told.append)
    device.begin()
    had = device.end()
    assert had.end_ns >= had.start_ns > 0
    assert had.share_ns is None
    assert "batches have no share" in told[0]
    device.close()


@pytest.mark.parametrize("call", ["begin", "end"])
def test_a_board_that_breaks_is_done_without(
    tmp_path: Path, facts: Facts, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def breaking(_: Board) -> None:
        raise ZeroDivisionError("as it should not")

    told: list[str] = []
    device = Device.open(tmp_path, facts, MonotonicClock(), told.append)
    monkeypatch.setattr(Board, call, breaking)
    for _ in range(3):
        device.begin()
        assert device.end().share_ns is None
    assert len(told) == 1
    device.close()

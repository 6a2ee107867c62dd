"""The clock of a batch. The driver here is a stand-in: no GPU, and no CUDA, is in these tests."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

import pytest

from triton_models.emitter.clock import WAIT_NS, Clock, MonotonicClock, clock_of

NOT_READY = 600


class StandInDriver:
    """In the place of libcuda: a device whose timeline is set by the test.

    ``fails`` are the functions that answer with an error.
    """

    def __init__(self, *, is_active: bool = True) -> None:
        self.is_active = is_active
        self.device_ms = 0.0
        self.is_done = True
        self.fails = set[str]()
        self.calls = list[str]()
        self.context: list[int] = []
        self._stamps = dict[int, float]()

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("cu"):
            raise AttributeError(name)
        answer = getattr(self, f"on_{name}", lambda *args: 0)

        def call(*args: Any) -> int:
            self.calls.append(name)
            return 700 if name in self.fails else int(answer(*args))

        return call

    def on_cuDevicePrimaryCtxGetState(self, device: Any, flags: Any, active: Any) -> int:
        active._obj.value = int(self.is_active)
        return 0

    def on_cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:
        context._obj.value = 4711
        return 0

    def on_cuCtxPushCurrent_v2(self, context: ctypes.c_void_p) -> int:
        self.context.append(context.value or 0)
        return 0

    def on_cuCtxPopCurrent_v2(self, before: Any) -> int:
        before._obj.value = self.context.pop()
        return 0

    def on_cuEventCreate(self, event: Any, flags: int) -> int:
        assert flags == 0, "events without timing have no time"
        event._obj.value = 100 + len(self._stamps)
        self._stamps[event._obj.value] = 0.0
        return 0

    def on_cuEventRecord(self, event: ctypes.c_void_p, stream: None) -> int:
        assert self.context == [4711], "an event lies in the context that it was made in"
        assert stream is None, "the legacy default stream waits for the model's"
        self._stamps[event.value or 0] = self.device_ms
        return 0

    def on_cuEventQuery(self, event: ctypes.c_void_p) -> int:
        return 0 if self.is_done else NOT_READY

    def on_cuEventElapsedTime(
        self, elapsed: Any, first: ctypes.c_void_p, second: ctypes.c_void_p
    ) -> int:
        elapsed._obj.value = self._stamps[second.value or 0] - self._stamps[first.value or 0]
        return 0


def clock_with(driver: StandInDriver, said: list[str], device_id: int = 0) -> Clock:
    return clock_of("GPU", device_id, said.append, load=lambda: driver)


def timed(clock: Clock, driver: StandInDriver, device_ms: float) -> int | None:
    clock.start()
    driver.device_ms += device_ms
    clock.stop()
    return clock.elapsed_ns()


def test_a_batch_took_what_lies_between_its_marks_on_the_device() -> None:
    driver, said = StandInDriver(), list[str]()
    clock = clock_with(driver, said)
    for device_ms in (12.5, 0.25, 0.0):
        assert timed(clock, driver, device_ms) == round(device_ms * 1e6)
        assert clock.source == "cuda"
    assert said == []
    assert driver.calls.count("cuEventCreate") == 2


def test_the_models_own_context_is_set_again_after_each_mark() -> None:
    driver = StandInDriver()
    driver.context = []
    timed(clock_with(driver, []), driver, 1.0)
    assert driver.context == []
    assert driver.calls.count("cuCtxPushCurrent_v2") == driver.calls.count("cuCtxPopCurrent_v2")


def test_no_context_is_made_for_a_model_that_does_not_use_cuda() -> None:
    driver, said = StandInDriver(is_active=False), list[str]()
    clock = clock_with(driver, said)
    assert timed(clock, driver, 3.0) != 3_000_000
    assert clock.source == "monotonic"
    assert "cuDevicePrimaryCtxRetain" not in driver.calls

    driver.is_active = True
    assert timed(clock, driver, 3.0) == 3_000_000
    assert clock.source == "cuda"
    assert said == []


def test_a_device_that_is_not_done_is_not_waited_for_and_the_next_batch_is_timed() -> None:
    driver, said = StandInDriver(), list[str]()
    clock = clock_with(driver, said)
    driver.is_done = False
    began = time.monotonic_ns()
    assert timed(clock, driver, 8.0) is None
    assert time.monotonic_ns() - began < 100 * WAIT_NS
    driver.is_done = True
    assert timed(clock, driver, 2.0) == 2_000_000
    assert said == []


def test_without_both_marks_there_is_no_time() -> None:
    driver = StandInDriver()
    for clock in (clock_with(driver, []), MonotonicClock()):
        assert clock.elapsed_ns() is None
        clock.start()
        assert clock.elapsed_ns() is None


@pytest.mark.parametrize(
    ("function", "batches_before"),
    [
        ("cuDevicePrimaryCtxGetState", 0),
        ("cuDevicePrimaryCtxRetain", 0),
        ("cuEventCreate", 0),
        ("cuCtxPushCurrent_v2", 0),
        ("cuCtxPushCurrent_v2", 1),
        ("cuCtxPopCurrent_v2", 1),
        ("cuEventRecord", 0),
        ("cuEventRecord", 1),
        ("cuEventQuery", 1),
        ("cuEventElapsedTime", 1),
    ],
)
def test_a_driver_that_fails_is_said_once_and_the_hosts_clock_goes_on(
    function: str, batches_before: int
) -> None:
    driver, said = StandInDriver(), list[str]()
    clock = clock_with(driver, said)
    for _ in range(batches_before):
        assert timed(clock, driver, 5000.0) == 5_000_000_000
    driver.fails.add(function)
    first, *later = [timed(clock, driver, 5000.0) for _ in range(3)]
    assert len(said) == 1
    assert function in said[0]
    assert "700" in said[0]
    assert clock.source == "monotonic"
    assert first is None or first < 4_000_000_000
    assert all(ns is not None and 0 <= ns < 4_000_000_000 for ns in later)


def test_a_failure_after_the_marks_never_gives_the_hosts_time_for_the_devices() -> None:
    driver = StandInDriver()
    clock = clock_with(driver, [])
    clock.start()
    clock.stop()
    assert clock.source == "cuda"
    driver.fails.add("cuEventElapsedTime")
    assert clock.elapsed_ns() is None


@pytest.mark.parametrize("function", ["cuInit", "cuDeviceGet"])
def test_a_device_that_is_not_there_is_said_and_the_host_times(function: str) -> None:
    driver, said = StandInDriver(), list[str]()
    driver.fails.add(function)
    clock = clock_with(driver, said, device_id=9)
    assert clock.source == "monotonic"
    assert len(said) == 1
    assert function in said[0]


def test_a_host_without_the_driver_is_timed_by_its_own_clock() -> None:
    def missing() -> Any:
        raise OSError("libcuda.so.1: cannot open shared object file")

    said = list[str]()
    clock = clock_of("KIND_GPU", 0, said.append, load=missing)
    assert clock.source == "monotonic"
    assert len(said) == 1
    assert "libcuda.so.1" in said[0]


def test_an_instance_on_the_cpu_never_asks_for_the_driver() -> None:
    def forbidden() -> Any:
        raise AssertionError("the driver was asked for")

    clock = clock_of("CPU", 0, pytest.fail, load=forbidden)
    clock.start()
    time.sleep(0.01)
    clock.stop()
    elapsed_ns = clock.elapsed_ns()
    assert elapsed_ns is not None
    assert elapsed_ns >= 10_000_000

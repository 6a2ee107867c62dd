"""The clock of a batch: the accelerator's own where it can be had, else the host's.

On CUDA two events are put on the device's timeline, one before the batch and one after it; the
device stamps each when it has done all that came before. What lies between them is the device's
time for the batch, its pauses included, and none of what the host does after the last kernel.

The events lie on the legacy default stream. It waits for every stream of the process that was not
made non-blocking; work on a non-blocking stream is seen only if the model waits for it.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

WAIT_NS = 2_000_000
"""For the device to come to the second event; a model that has its outputs is past it."""
PAUSE_S = 20e-6
_NOT_READY = 600
_LEGACY_STREAM = None


class Clock(Protocol):
    """Marks one batch after the other; no method raises."""

    @property
    def source(self) -> Literal["monotonic", "cuda"]:
        """Which clock marks the batch that was started last."""

    def start(self) -> None:
        """The batch begins."""

    def stop(self) -> None:
        """The model has done all it does for the batch."""

    def elapsed_ns(self) -> int | None:
        """Between the marks; ``None``: one is missing, or the device has not come to it yet."""


class MonotonicClock:
    """The host's clock."""

    source: Literal["monotonic", "cuda"] = "monotonic"

    def __init__(self) -> None:
        self._start_ns: int | None = None
        self._stop_ns: int | None = None

    def start(self) -> None:
        self._start_ns, self._stop_ns = time.monotonic_ns(), None

    def stop(self) -> None:
        self._stop_ns = time.monotonic_ns()

    def elapsed_ns(self) -> int | None:
        if self._start_ns is None or self._stop_ns is None:
            return None
        return self._stop_ns - self._start_ns


class CudaClock:
    """The device's clock, through CUDA's driver.

    It joins the context that the model works in, the device's primary one, once there is one: it
    makes none, for a context takes up hundreds of megabytes of the device. Until then, and for
    good after a first failure, which is logged, the host's clock marks the batches.
    """

    def __init__(self, device: _CudaDevice, log: Callable[[str], None]) -> None:
        self._cuda: _CudaDevice | None = device
        self._log = log
        self._host = MonotonicClock()
        self._marks = 0

    @property
    def source(self) -> Literal["monotonic", "cuda"]:
        return "cuda" if self._marks else "monotonic"

    def start(self) -> None:
        self._marks = 0
        self._host.start()
        if self._cuda is not None:
            try:
                self._marks = int(self._cuda.mark(0))
            except Exception as exc:  # noqa: BLE001  # metering never fails inference
                self._give_up(exc)

    def stop(self) -> None:
        if self._cuda is not None and self._marks == 1:
            try:
                self._marks += self._cuda.mark(1)
            except Exception as exc:  # noqa: BLE001  # metering never fails inference
                self._give_up(exc)
        self._host.stop()

    def elapsed_ns(self) -> int | None:
        if self._cuda is not None and self._marks:
            try:
                return self._cuda.between_ns() if self._marks == 2 else None
            except Exception as exc:  # noqa: BLE001  # metering never fails inference
                self._give_up(exc)
                return None  # Whoever has seen "cuda" must not get the host's time for it.
        return self._host.elapsed_ns()

    def _give_up(self, exc: Exception) -> None:
        self._cuda, self._marks = None, 0
        self._log(f"CUDA's clock: {exc}; batches are timed by the host's from now on")


class CudaFailure(Exception):
    """A call of the driver was refused; never leaves this module."""


class _CudaDevice:
    """Two events in the primary context of a device."""

    def __init__(self, library: Any, device_id: int) -> None:
        self._library = library
        self._context = ctypes.c_void_p()
        self._events: tuple[ctypes.c_void_p, ctypes.c_void_p] | None = None
        self._device = ctypes.c_int()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(self._device), device_id)

    def mark(self, n: int) -> bool:
        """``False``: the model has no context yet."""
        events = self._events or self._join()
        if events is None:
            return False
        with self._inside():
            self._call("cuEventRecord", events[n], _LEGACY_STREAM)
        return True

    def between_ns(self) -> int | None:
        if self._events is None:
            return None
        until_ns = time.monotonic_ns() + WAIT_NS
        with self._inside():
            while self._status("cuEventQuery", self._events[1]) == _NOT_READY:
                if time.monotonic_ns() >= until_ns:
                    return None
                time.sleep(PAUSE_S)
            elapsed_ms = ctypes.c_float()
            self._call("cuEventElapsedTime", ctypes.byref(elapsed_ms), *self._events)
        return max(0, round(elapsed_ms.value * 1e6))

    def _join(self) -> tuple[ctypes.c_void_p, ctypes.c_void_p] | None:
        flags, is_active = ctypes.c_uint(), ctypes.c_int()
        self._call(
            "cuDevicePrimaryCtxGetState",
            self._device,
            ctypes.byref(flags),
            ctypes.byref(is_active),
        )
        if not is_active.value:
            return None
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        events = ctypes.c_void_p(), ctypes.c_void_p()
        with self._inside():
            for event in events:
                self._call("cuEventCreate", ctypes.byref(event), 0)
        self._events = events
        return events

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """The context is this thread's for a moment; what the model had set comes back."""
        self._call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            before = ctypes.c_void_p()
            self._call("cuCtxPopCurrent_v2", ctypes.byref(before))

    def _status(self, name: str, *args: object) -> int:
        status = int(getattr(self._library, name)(*args))
        if status not in (0, _NOT_READY):
            raise CudaFailure(f"{name} failed with CUresult {status}")
        return status

    def _call(self, name: str, *args: object) -> None:
        if self._status(name, *args):
            raise CudaFailure(f"{name}: not ready")


def _libcuda() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def clock_of(
    kind: str,
    device_id: int,
    log: Callable[[str], None],
    load: Callable[[], Any] = _libcuda,
) -> Clock:
    """For Triton's ``model_instance_kind`` and ``model_instance_device_id``.

    ``load`` gets the driver. Where it can't be used, that is logged and the host's clock serves.
    """
    if kind not in ("GPU", "KIND_GPU"):
        return MonotonicClock()
    try:
        return CudaClock(_CudaDevice(load(), device_id), log)
    except Exception as exc:  # noqa: BLE001  # metering never fails inference
        log(f"CUDA's clock: {exc}; batches are timed by the host's")
        return MonotonicClock()

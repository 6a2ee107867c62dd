"""One heartbeat: the boards, and the counters of the one server that lives here."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from metering.capacity import (
    CapacityHeartbeat,
    DeviceCapacity,
    InstanceCapacity,
)
from metering.errors import MeteringError
from metering.occupancy_board import DeviceReading, read_boards
from streams.sentinel.counters import Ask, ask_counters


async def take(log_dir: Path, ask: Ask) -> tuple[CapacityHeartbeat, str]:
    """The heartbeat, and why it claims no counters; empty where it does."""
    began_ns = time.time_ns()
    counters, silence = None, ""
    try:
        counters = await ask_counters(log_dir, ask)
        if counters.boot is None:
            silence = f"{counters.living} servers with metered models live on this host, not 1"
    except MeteringError as exc:
        silence = str(exc)
    readings = await asyncio.to_thread(read_boards, log_dir)
    offset_ns = clock_offset_ns()
    own_host = socket.gethostname()
    boot = None if counters is None else counters.boot
    beat = CapacityHeartbeat(
        source=f"{own_host}/{machine_boot()}/sentinel",
        sequence=time.monotonic_ns(),
        host=own_host if boot is None else boot.host,
        boot_id=None if boot is None else boot.boot_id,
        time_ns=began_ns if counters is None else counters.time_ns,
        asked_ns=max(began_ns, time.time_ns()) if counters is None else counters.asked_ns,
        triton_answers=counters is not None,
        devices=tuple(_device(reading, offset_ns) for reading in readings),
        instances=tuple(_instances(readings)),
        models=() if counters is None or boot is None else counters.models,
    )
    return beat, silence


def machine_boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]


def clock_offset_ns() -> int:
    """What the clock of the day is ahead of the monotonic one, to the shortest of some looks."""
    looks = []
    for _ in range(5):
        before_ns = time.monotonic_ns()
        now_ns = time.time_ns()
        after_ns = time.monotonic_ns()
        looks.append((after_ns - before_ns, now_ns - (before_ns + after_ns) // 2))
    return min(looks)[1]


def _device(reading: DeviceReading, offset_ns: int) -> DeviceCapacity:
    return DeviceCapacity(
        device=reading.device,
        accelerator=reading.accelerator,
        boot=reading.boot,
        wall_ns=reading.wall_ns,
        busy_ns=reading.busy_ns,
        idle_ns=reading.idle_ns,
        lost_ns=reading.lost_ns,
        running=reading.running,
        board=reading.board,
        read_ns=reading.read_at_ns + offset_ns,
    )


def _instances(readings: Sequence[DeviceReading]) -> Iterator[InstanceCapacity]:
    for reading in readings:
        for instance in reading.instances:
            since_ns = instance.running_since_ns
            running_ns = 0 if since_ns is None else max(0, reading.read_at_ns - since_ns)
            batch_ns = min(instance.wall_ns, instance.batch_ns + running_ns)
            yield InstanceCapacity(
                source=instance.source,
                model=instance.model,
                device=reading.device,
                wall_ns=instance.wall_ns,
                busy_ns=instance.busy_ns,
                batch_ns=batch_ns,
                idle_ns=instance.wall_ns - batch_ns,
                executions=instance.executions,
            )

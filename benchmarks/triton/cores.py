"""How many cores each part of the stack was busy on, as ``/proc`` counts them."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from streams.stack.groups import members

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STUB = "triton_python_b"
OTHERS = "others"


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU seconds by part; ``others`` is what the machine did beside all of them."""

    at_s: float
    cpu_s: Mapping[str, float]

    def cores_since(self, earlier: Reading) -> dict[str, float]:
        passed_s = self.at_s - earlier.at_s
        return {
            part: (cpu_s - earlier.cpu_s.get(part, 0.0)) / passed_s
            for part, cpu_s in self.cpu_s.items()
        }


def read(groups: Mapping[str, int]) -> Reading:
    """Of process groups by name; Triton's stubs are told apart from its server as ``models``."""
    cpu_s: defaultdict[str, float] = defaultdict(float)
    for name, group in groups.items():
        for process in members(group):
            part = "models" if process.command.startswith(_STUB) else name
            cpu_s[part] += _of_process_s(process.pid)
    cpu_s[OTHERS] = _of_machine_s() - sum(cpu_s.values())
    return Reading(time.monotonic(), cpu_s)


def _of_process_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # It has just ended.
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _of_machine_s() -> float:
    """User, nice, system, irq, softirq and stolen; not idle, nor waiting for a disk."""
    line = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    return sum(int(line[field]) for field in (0, 1, 2, 5, 6, 7)) / _TICKS_PER_S

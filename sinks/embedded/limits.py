"""What a request may take: memory, bytes of a body, and how many run at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CGROUP_FILES: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_MIN_BYTES: Final = 256 << 20
DEFAULT_MAX_BODY_BYTES: Final = 16 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """``memory_bytes`` is for the engine as a whole, ``query_memory_bytes`` for a query that sets
    no other limit.
    """

    memory_bytes: int
    query_memory_bytes: int
    body_bytes: int = DEFAULT_MAX_BODY_BYTES
    concurrent_queries: int = 32

    @property
    def held_body_bytes(self) -> int:
        """Of data in a format that the engine reads only when it has all of it, such as Parquet."""
        return min(self.body_bytes, self.query_memory_bytes // 4)

    @classmethod
    def of_machine(cls) -> Limits:
        """Half of the machine's memory for the engine, and half of that for a query."""
        memory = max(_MIN_BYTES, machine_memory_bytes() // 2)
        return cls(memory, memory // 2)


def machine_memory_bytes() -> int:
    """The machine's memory, or that of the container where it is less."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _CGROUP_FILES:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            found = min(found, int(text))
    return found

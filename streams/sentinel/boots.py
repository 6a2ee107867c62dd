"""Which server lives on this host, as its usage log tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metering.wal_cap import WRITER_LOCK, survey, writer_is_gone

SOURCE_PARTS = 4
"""HOST/BOOT_ID/PROCESS/INSTANCE."""


@dataclass(frozen=True, slots=True, order=True)
class Boot:
    """One start of one server; ``host`` as its instances call it."""

    host: str
    boot_id: str


def living_boots(log_dir: Path) -> set[Boot]:
    """Of every instance whose process holds its log; two, while one server takes over from
    another. To look, each lock is held for a moment: a writer that begins just then tries again
    with its next batch."""
    found = set()
    for folder in survey(log_dir):
        parts = folder.relative_to(log_dir).parts
        if len(parts) != SOURCE_PARTS or not (folder / WRITER_LOCK).exists():
            continue
        boot = Boot(parts[0], parts[1])
        if boot in found:
            continue
        with writer_is_gone(folder) as gone:
            if not gone:
                found.add(boot)
    return found

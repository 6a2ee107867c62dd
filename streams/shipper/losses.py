"""What this host's usage log has lost so far: a count that outlives shippers and emitters.

Two kinds, each noted where it happened before it comes here (``metering.wal_cap``): segments that
were dropped at the cap, one note each; and what an emitter could not write, one running count per
source. They are added to ``losses.json``, and only then are the notes removed. A crash in between
adds nothing twice: the document names the notes that are in it, and how far each source's count is.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from metering.wal import Loss
from metering.wal_cap import UNWRITTEN, SourceFiles, drop_lock, read_unwritten, settle_drop

LOSSES = "losses.json"
log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Book:
    dropped: Loss = field(default_factory=Loss)
    unwritten: Loss = field(default_factory=Loss)
    notes: set[str] = field(default_factory=set)
    sources: dict[str, Loss] = field(default_factory=dict)


class Losses:
    """One log folder's losses; for the shipper that holds its lock."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._path = log_dir / LOSSES
        self._book = _read(self._path)
        self._saved = True
        self._failed = False

    @property
    def dropped(self) -> Loss:
        return self._book.dropped

    @property
    def unwritten(self) -> Loss:
        return self._book.unwritten

    def gather(self, found: Mapping[Path, SourceFiles]) -> None:
        """Take up what is noted in the sources' folders, then remove notes that are saved."""
        with drop_lock(self._log_dir) as mine:
            if mine:
                for path in [p for files in found.values() for p in files.dropped]:
                    self._take_drop(path)
        for folder in found:
            self._take_unwritten(folder)
        if self._save():
            self._forget(p for files in found.values() for p in files.dropped)

    def is_gathered(self, folder: Path) -> bool:
        """Whether the folder's notes are saved here, so that it may go."""
        known = self._book.sources.get(self._name(folder), Loss())
        return self._saved and read_unwritten(folder) == known

    def _take_drop(self, path: Path) -> None:
        name = self._name(path)
        if name in self._book.notes or not path.exists():
            return
        loss = settle_drop(path)
        self._book.dropped += loss
        self._book.notes.add(name)
        self._saved = False
        log.error(
            "%s: %d batches with %d requests (%d bytes) were dropped unshipped: "
            "the usage log is at its cap",
            path.parent.relative_to(self._log_dir),
            loss.batches,
            loss.requests,
            loss.bytes,
        )

    def _take_unwritten(self, folder: Path) -> None:
        name, counted = self._name(folder), read_unwritten(folder)
        known = self._book.sources.get(name, Loss())
        if counted.batches <= known.batches:
            return
        more = Loss(counted.batches - known.batches, counted.requests - known.requests)
        self._book.unwritten += more
        self._book.sources[name] = counted
        self._saved = False
        if counted.batches.bit_length() > known.batches.bit_length():  # loud, but never a flood
            log.error(
                "%s: %d batches with %d requests could not be written to the log so far: "
                "is its disk full?",
                name,
                counted.batches,
                counted.requests,
            )

    def _forget(self, notes: Iterable[Path]) -> None:
        for path in notes:
            if self._name(path) in self._book.notes:
                path.unlink(missing_ok=True)
        # Named until they are gone for certain; then the next save is shorter.
        self._book.notes = {n for n in self._book.notes if (self._log_dir / n).exists()}
        self._book.sources = {
            n: c for n, c in self._book.sources.items() if (self._log_dir / n / UNWRITTEN).exists()
        }

    def _save(self) -> bool:
        """A disk that is full keeps the notes, and they are saved when there is space."""
        if self._saved:
            return True
        document: dict[str, Any] = {
            "dropped": asdict(self._book.dropped),
            "unwritten": asdict(self._book.unwritten),
            "notes": sorted(self._book.notes),
            "sources": {name: asdict(loss) for name, loss in self._book.sources.items()},
        }
        temporary = self._path.with_suffix(".new")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(document, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as exc:
            if not self._failed:
                log.warning("%s can't be written, tried again: %s", self._path, exc)
            self._failed = True
            return False
        self._saved, self._failed = True, False
        return True

    def _name(self, path: Path) -> str:
        return path.relative_to(self._log_dir).as_posix()


def _read(path: Path) -> _Book:
    """A document that can't be read is put aside, so that shipping goes on; it is told of."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return _Book(
            Loss(**saved["dropped"]),
            Loss(**saved["unwritten"]),
            set(saved["notes"]),
            {name: Loss(**loss) for name, loss in saved["sources"].items()},
        )
    except FileNotFoundError:
        return _Book()
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        log.error("%s is not a count of losses (%s); it begins at 0", path, exc)
        path.replace(path.with_suffix(".broken"))
        return _Book()

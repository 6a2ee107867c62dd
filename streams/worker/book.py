"""The price book in use: read from its file again when that changes."""

from __future__ import annotations

import logging
from pathlib import Path

from metering.errors import InvalidPriceBook
from metering.prices import PriceBook, read_price_book

log = logging.getLogger(__name__)


class PriceBookFile:
    """Holds the last good book. A file that has become unreadable is reported, not obeyed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._stamped()
        self.book: PriceBook = read_price_book(path)
        self.ok = True

    def refresh(self) -> bool:
        """Read the file again if it has changed; ``True`` says that another book is in use."""
        stamp = self._stamped()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self.book = read_price_book(self._path)
        except InvalidPriceBook as exc:
            self.ok = False
            log.error("the price book can't be used, the one before it stays in use: %s", exc)
            return False
        self.ok = True
        log.info("price book %s: %d entries", self._path, len(self.book))
        return True

    def _stamped(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

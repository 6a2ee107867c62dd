"""How a front shows the model behind it that nobody waits for a request's answer any more.

BLS of Triton 2.51 does not pass a cancellation on: to the model behind a front
``request.is_cancelled()`` is false for ever. So the front has a page of memory without a name in
any file system, with a byte for each request that is on its way; the model reads it. Both are
children of one server. The memory goes with the processes that have it open, however they end.
"""

from __future__ import annotations

import mmap
import os
import re
import secrets
from collections import deque
from contextlib import suppress

SLOTS = 4096
_NAME = "meter-front-{}"
_REFERENCE = re.compile(r"(\d{1,10})\.(\d{1,6})\.([0-9a-f]{16})\.(\d{1,6})", re.ASCII)
_MOST_FRONTS = 64


class Flags:
    """The front's side: a slot belongs to one request from ``take`` to ``give_back``."""

    def __init__(self, slots: int = SLOTS) -> None:
        token = secrets.token_hex(8)
        self._fd = os.memfd_create(_NAME.format(token), os.MFD_CLOEXEC)
        os.ftruncate(self._fd, slots)
        self._bytes = mmap.mmap(self._fd, slots)
        self._free = deque(range(slots))
        self._prefix = f"{os.getpid()}.{self._fd}.{token}"

    def take(self) -> int | None:
        """``None`` where all are taken: then a cancellation is not shown."""
        try:
            return self._free.popleft()
        except IndexError:
            return None

    def reference(self, slot: int) -> str:
        return f"{self._prefix}.{slot}"

    def show(self, slot: int) -> None:
        self._bytes[slot] = 1

    def give_back(self, slot: int) -> None:
        self._bytes[slot] = 0
        self._free.append(slot)

    def close(self) -> None:
        self._bytes.close()
        os.close(self._fd)


class Shown:
    """The model's side: opens a front's page once, and never anything that is not one."""

    def __init__(self) -> None:
        self._pages: dict[str, mmap.mmap | None] = {}

    def cancelled(self, reference: str) -> bool:
        """``False`` also for a reference that leads nowhere."""
        page_name, _, slot = reference.rpartition(".")
        page = self._pages.get(page_name)
        if page is None:
            if page_name in self._pages or not _REFERENCE.fullmatch(reference):
                return False
            page = self._open(page_name)
        return page is not None and slot.isdigit() and int(slot) < len(page) and page[int(slot)] > 0

    def _open(self, page_name: str) -> mmap.mmap | None:
        if len(self._pages) >= _MOST_FRONTS:
            self.close()
        page = None
        with suppress(OSError, ValueError):
            page = _page(page_name)
        self._pages[page_name] = page
        return page

    def close(self) -> None:
        for page in self._pages.values():
            if page is not None:
                page.close()
        self._pages.clear()


def _page(page_name: str) -> mmap.mmap | None:
    pid, fd, token = page_name.split(".")
    link = f"/proc/{pid}/fd/{fd}"
    # What a client could name in its stead is no page of a front.
    if not os.readlink(link).startswith(f"/memfd:{_NAME.format(token)} "):
        return None
    own = os.open(link, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return mmap.mmap(own, os.fstat(own).st_size, prot=mmap.PROT_READ)
    finally:
        os.close(own)

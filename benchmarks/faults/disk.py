"""A small disk for the usage log, and something else that fills it."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from metering.errors import StackError

_EVERY_S = 0.02
_BLOCKS_BYTES = (64 * 1024, 4096, 256)
_MOUNT = 'mount -t tmpfs -o size="$1" meter "$0" && echo mounted && exec cat'
_NAMESPACES = (("--mount",), ("--user", "--map-root-user", "--mount"))
"""As root; else in a user namespace of its own, where the kernel allows that."""


@contextmanager
def log_on_small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """The disk; the log of a stack that is begun in ``folder`` lies on it.

    Raises:
        StackError: there is none to be had here.
    """
    with small_disk(folder / "disk", size_bytes) as disk:
        (disk / "usage-log").mkdir()
        (folder / "usage-log").symlink_to(disk / "usage-log")
        yield disk


@contextmanager
def small_disk(mount_point: Path, size_bytes: int) -> Iterator[Path]:
    """A tmpfs in a mount namespace of its own, seen from outside through ``/proc``. It is gone
    with this process, however that ends.

    Raises:
        StackError: none can be mounted here; with what was said about it.
    """
    mount_point.mkdir(parents=True, exist_ok=True)
    said: list[str] = []
    for namespaces in _NAMESPACES:
        keeper = _keep(namespaces, mount_point, size_bytes)
        try:
            if keeper.stdout is not None and keeper.stdout.readline() == b"mounted\n":
                yield Path(f"/proc/{keeper.pid}/root") / mount_point.relative_to("/")
                return
        finally:
            keeper.kill()
            _, error = keeper.communicate()
        said.append(error.decode(errors="replace").strip())
    raise StackError(
        f"no tmpfs of {size_bytes} bytes can be mounted at {mount_point}: run this as root, or "
        f"where `unshare --user --map-root-user --mount` is allowed ({'; '.join(said)})"
    )


def _keep(
    namespaces: tuple[str, ...], mount_point: Path, size_bytes: int
) -> subprocess.Popen[bytes]:
    """It ends when its standard input does, which is when we do."""
    command = ["unshare", *namespaces, "sh", "-c", _MOUNT, str(mount_point), str(size_bytes)]
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as exc:
        raise StackError(f"a small disk needs util-linux' unshare: {exc}") from exc


@asynccontextmanager
async def filled(disk: Path) -> AsyncIterator[None]:
    """Every block that is free, and every one that becomes free meanwhile, is taken."""
    filler = disk / "something-else"
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    _fill(fd)
    taking = asyncio.create_task(_go_on(fd))
    try:
        yield
    finally:
        taking.cancel()
        with suppress(asyncio.CancelledError):
            await taking
        os.close(fd)
        filler.unlink()


async def _go_on(fd: int) -> None:
    while True:
        await asyncio.sleep(_EVERY_S)
        _fill(fd)


def _fill(fd: int) -> None:
    for block_bytes in _BLOCKS_BYTES:
        block = bytes(block_bytes)
        try:
            while os.write(fd, block):
                pass
        except OSError as exc:
            if exc.errno != errno.ENOSPC:
                raise

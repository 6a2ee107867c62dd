"""Which folders a stack can be in, and how a path is given to a program that can't quote it."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from metering.errors import StackError

MOST_BYTES = 2_048
"""The stack makes folders and files below it; Linux allows 4,096 for a whole path."""
_NOT_FOR_CLICKHOUSE = "?"
"""The engine takes what follows it in a path for options."""
_PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")
_PLAIN_AT_MOST = 256
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108


def check_folder(folder: Path) -> None:
    """Refuse a folder in which a process of the stack can't work; spaces, quotes and letters of
    any alphabet are no reason.

    Raises:
        StackError: naming the folder and the reason.
    """
    path = str(folder)
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise StackError(f"the folder {path!r} is not UTF-8: use another --dir") from None
    bad = sorted({c for c in path if c in _NOT_FOR_CLICKHOUSE or not c.isprintable()})
    if bad:
        raise StackError(
            f"the folder {path!r} has {', '.join(map(repr, bad))} in its path, which ClickHouse or "
            "Kafka can't have there: use another --dir"
        )
    if size > MOST_BYTES:
        raise StackError(
            f"the folder {path[:80]}… has a path of {size} bytes, more than {MOST_BYTES}: "
            "use another --dir"
        )


def is_plain(path: Path) -> bool:
    """Whether a shell takes the path as it stands."""
    text = str(path)
    return len(text) <= _PLAIN_AT_MOST and _PLAIN.fullmatch(text) is not None


def plain_holder() -> Path:
    """A new folder with a plain path, for links to what has none; whoever asks removes it.

    Triton's Python backend starts a model's process by a shell and does not quote the paths.

    Raises:
        StackError: no temporary folder has a plain path and can be written to.
    """
    tried = (Path(tempfile.gettempdir()), *_TEMPORARY)
    for parent in filter(is_plain, tried):
        try:
            return Path(tempfile.mkdtemp(prefix="inference-meter-", dir=parent))
        except OSError:
            continue
    shown = ", ".join(map(str, tried))
    raise StackError(f"no folder for links to a path with spaces or quotes: tried {shown}")


def link_to(target: Path, holder: Path) -> Path:
    """A link in ``holder`` through which ``target`` has a plain path."""
    link = holder / "stack"
    os.symlink(target, link, target_is_directory=True)
    return link

"""zstd at the level that pays for many short columns of numbers and ids.

aiokafka compresses at level 3 and has no setting for it. At level 1 lines of costs take less than
half the time, and no more bytes.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

from aiokafka.codec import zstd_encode
from aiokafka.record import default_records

LEVEL = 1


def compress_quickly() -> None:
    """For every producer of this process, from then on."""
    quick = partial(zstd_encode, level=LEVEL)
    default_records.zstd_encode = quick
    if not default_records.NO_EXTENSIONS:
        compiled: Any = import_module("aiokafka.record._crecords.default_records")
        compiled.zstd_encode = quick

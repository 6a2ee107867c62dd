"""When the worker's garbage is collected: every few seconds, and hardly ever in between.

Python looks for cycles by how many objects were made. A take makes few, and large ones: arrays and
buffers. Python's own threshold then took a sixth of the worker's time, and a high one left hundreds
of megabytes in cycles of a few tasks and frames.
"""

from __future__ import annotations

import gc

EVERY_S = 5.0
ALL_EVERY = 12
"""Everything, so many times less often: it holds up all else for a tenth of a second."""
YOUNG_OBJECTS = 100_000


def settle() -> None:
    """Whatever is there now stays for good, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)


def collect(turn: int) -> None:
    """What has not been there for long: some milliseconds."""
    gc.collect(1 if turn % ALL_EVERY else 2)

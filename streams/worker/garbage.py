"""When the worker's garbage is collected: every half a minute, and hardly ever in between.

Python looks for cycles by how many objects were made. A take makes few, and large ones: arrays and
buffers. Python's own threshold then took a sixth of the worker's time, and a high one left hundreds
of megabytes in cycles of a few tasks and frames. Hardly any are made since; to look for them takes
some 50 ms while the worker is busy, in which nothing else goes on.
"""

from __future__ import annotations

import gc

EVERY_S = 30.0
ALL_EVERY = 4
"""Everything, so many times less often."""
YOUNG_OBJECTS = 100_000


def settle() -> None:
    """Whatever is there now stays for good, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)


def collect(turn: int) -> None:
    """What has not been there for long; at each ``ALL_EVERY``-th turn everything."""
    gc.collect(1 if turn % ALL_EVERY else 2)

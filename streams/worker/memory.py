"""Memory that the worker is done with stays with it: it is filled again with the next messages.

Left to itself the C library gives large pieces back to the kernel at once, and is given them anew,
page by page and full of zeros, a moment later: on a virtual machine at some 3.5 µs a page, of which
a take of messages has thousands.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""<malloc.h>"""
KEPT_BYTES = 128 * 1024**2
LARGE_BYTES = 32 * 1024**2
"""As large as glibc takes it: what is larger is given back."""


def keep_memory() -> None:
    """For the whole process, from then on. Does nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)

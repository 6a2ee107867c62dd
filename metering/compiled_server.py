"""What is compiled for a server's side, if there was a C compiler where it was installed; else it
is ``None``, and Python does the same, which takes a batch some tenths of a millisecond more."""

from __future__ import annotations

try:
    from metering import mapping, recorder
except ImportError:
    mapping = recorder = None  # type: ignore[assignment]

IS_COMPILED = recorder is not None

__all__ = ["IS_COMPILED", "mapping", "recorder"]

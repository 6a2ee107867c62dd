"""What is compiled where the package is installed, if that has a C compiler; else it is ``None``,
and Python does the same, at half the speed."""

from __future__ import annotations

try:
    from metering import packed, scanner, writer
except ImportError:
    packed = scanner = writer = None  # type: ignore[assignment]

IS_COMPILED = writer is not None

__all__ = ["IS_COMPILED", "packed", "scanner", "writer"]

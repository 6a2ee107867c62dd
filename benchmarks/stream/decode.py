"""How messages are decoded: the worker's own way, from bytes to columns whose every law holds; and
all that the bare loop does with them."""

from __future__ import annotations

from metering.messages import Message
from metering.messages import read as decode

__all__ = ["Message", "decode"]

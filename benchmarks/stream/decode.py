"""How a message is decoded: the worker's own function, and all that the bare loop calls."""

from __future__ import annotations

from metering.records import usage_of_payload as decode

__all__ = ["decode"]

"""How a message is decoded: the worker's own way, and all that the bare loop does with it."""

from __future__ import annotations

from pydantic_core import from_json as decode

__all__ = ["decode"]

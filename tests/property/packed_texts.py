"""Texts as the compiled reader keeps them; only where there is one."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from metering.packed import Packed


def packed_of(texts: Sequence[str]) -> Packed:
    pieces = [json.dumps(t, ensure_ascii=False) for t in texts]
    raw = [piece.encode() + b"," for piece in pieces]
    offsets = np.cumsum([0, *map(len, raw)])
    return Packed(
        np.frombuffer(b"".join(raw), np.uint8), offsets, any("\\" in piece for piece in pieces)
    )

"""What was sent, one row a message, in the order of sending: how it is kept and read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SENT = np.dtype(
    [
        ("template", np.int32),
        ("sequence", np.int64),
        ("partition", np.int32),
        ("offset", np.int64),
        ("appended_ms", np.int64),
        ("planned_ns", np.int64),
        ("end_ns", np.int64),
        ("acked_ns", np.int64),
    ]
)
"""``appended_ms`` is the broker's stamp, ``end_ns`` the event's own time: the moment at which it
was handed to the producer. All are epoch, of one machine's clock."""

Sent = NDArray[Any]


def save(path: Path, rows: list[tuple[int, ...]]) -> None:
    """Complete or not there."""
    part = path.with_suffix(".part.npy")
    np.save(part, np.array(rows, SENT))
    part.replace(path)


def load(path: Path) -> Sent:
    return np.asarray(np.load(path), SENT)


def between(sent: Sent, first_ns: int, end_ns: int) -> NDArray[np.bool_]:
    """Which were appended from ``first_ns`` to before ``end_ns``."""
    ns = sent["appended_ms"] * 10**6
    found: NDArray[np.bool_] = (ns >= first_ns) & (ns < end_ns)
    return found

"""The receipt: what an answer took, handed back to the front beside it. Pure.

A model whose config declares the output ``METER_RECEIPT`` (TYPE_STRING, dims [1]) writes one on
the first row of each answer; its other rows are empty. Triton's cache keeps it with the answer, and
its key is made of model, version and inputs alone. So an echo that is not the request's own says
that the answer came from the cache, and the tokens are those that it once took.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

OUTPUT = "METER_RECEIPT"
_MOST = 2**53
_FIELDS = (
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """Tokens as in ``metering.usage``, summed over the request's rows."""

    echo: str
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def encode(self) -> bytes:
        """Without tokens where they are no numbers: that is for the record to say."""
        document = {"echo": self.echo, **{name: getattr(self, name) for name in _FIELDS}}
        try:
            return json.dumps(document, separators=(",", ":"), default=int).encode()
        except (TypeError, ValueError):
            return b""


UNKNOWN = Receipt("")
"""Of an answer that came from the cache without one."""


def is_declared(config: Mapping[str, Any]) -> bool:
    """Whether a model's config (config.pbtxt as JSON) has the output."""
    return any(output.get("name") == OUTPUT for output in config.get("output", ()))


def as_tensor(receipt: Receipt, rows: int, *, batched: bool) -> NDArray[np.object_]:
    """``[rows, 1]``, or ``[1]`` for a model whose ``max_batch_size`` is 0."""
    cells = [receipt.encode(), *[b""] * (rows - 1)] if batched else [receipt.encode()]
    flat: NDArray[np.object_] = np.array(cells, dtype=np.object_)
    return flat.reshape(rows, 1) if batched else flat


def from_tensor(tensor: NDArray[Any]) -> Receipt | None:
    """``None`` where no receipt can be read."""
    try:
        document = json.loads(bytes(tensor.reshape(-1)[0]))
        echo, *tokens = (document[name] for name in ("echo", *_FIELDS))
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None
    sound = all(type(n) is int and 0 <= n < _MOST for n in tokens)
    if not (sound and isinstance(echo, str)) or tokens[1] > tokens[0] or tokens[3] > tokens[2]:
        return None
    return Receipt(echo, *tokens)


def hit_of(tensor: NDArray[Any] | None, echo: str) -> Receipt | None:
    """What the cache's answer once took; ``None`` where the model has executed the request.

    An answer without the output came from the cache too: it was put there for a client that had
    not asked for the output. A receipt that can't be read is the model's own trouble: it has
    executed the request, and has metered it.
    """
    if tensor is None:
        return UNKNOWN
    found = from_tensor(tensor)
    return found if found is not None and found.echo != echo else None

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

INTS: int
DOLLARS: int
CODES: int
PACKED: int
AMOUNTS: int

class Column:
    def __init__(
        self,
        before: bytes,
        kind: int,
        values: NDArray[Any],
        known: NDArray[np.bool_] | None = None,
        texts: Sequence[bytes] = (),
        offsets: NDArray[np.int64] | None = None,
        atto: NDArray[np.int64] | None = None,
    ) -> None: ...

class Writer:
    def __init__(
        self,
        count: int,
        columns: Sequence[Any],
        led: Column | None = None,
        followers: Callable[[list[int]], bytes] | None = None,
    ) -> None: ...
    def message(self, head: bytes, start: int, stop: int) -> bytes: ...

def rows(heads: list[bytes], columns: Sequence[Any], end: bytes) -> list[bytes]: ...

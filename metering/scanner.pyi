from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

INT: int
KNOWN: int
TEXT: int
FLAG: int

class Values:
    name: str
    kind: int
    texts: list[str]
    has_unknown: bool

    def values(self, count: int) -> NDArray[Any]: ...
    def known_of(self, count: int) -> NDArray[Any] | None: ...

class Scan:
    batches: dict[str, Values]
    requests: dict[str, Values]
    payers: list[bytes]
    counts: list[int]
    payer: Values
    ids: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    has_escapes: bool

class Scanner:
    def __init__(
        self,
        start: bytes,
        head: Sequence[tuple[str, int]],
        columns: Sequence[tuple[str, int]],
        most_requests: int,
        most_text: int,
    ) -> None: ...
    def scan(self, values: list[bytes]) -> tuple[Scan | None, list[int]]: ...

def gathered(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]: ...
def without_frames(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], before: int, behind: int
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]: ...

from collections.abc import Callable, Sequence
from typing import Any

def frame(sequence: int, payload: bytes) -> bytes: ...

class Recorder:
    def __init__(
        self,
        head: bytes,
        payer_of: Callable[[str], bytes],
        nobody: str,
        told: type,
        batched: bool,
    ) -> None: ...
    def asked(self, requests: Sequence[Any]) -> bytes | None: ...
    def record(
        self, sequence: int, timing: Sequence[int | None], asked: bytes, served: Sequence[Any]
    ) -> bytes | None: ...

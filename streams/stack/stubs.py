"""Notices a model whose Python process is gone: Triton goes on calling it READY, for ever."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import aiohttp

from streams.stack.groups import members

_STUB = "triton_python_backend_stub"
_TIMEOUT = aiohttp.ClientTimeout(total=2.0)
_LOOKS = 3  # in a row: a model that is being loaded anew is without its stubs for a moment


@dataclass(frozen=True, slots=True)
class Stub:
    """The process of one model instance."""

    model: str
    instance: str


class StubWatch:
    """Remembers the stubs that it has seen; one that is missing though its model is READY for
    some looks in a row is dead. A model that was unloaded is forgotten.
    """

    def __init__(self, url: str) -> None:
        self._index = f"{url}/v2/repository/index"
        self._seen: set[Stub] = set()
        self._looks: dict[Stub, int] = {}

    async def look(self, group: int) -> str | None:
        living = stubs_of(group)
        lost = self._seen - living
        self._seen |= living
        self._looks = {stub: self._looks.get(stub, 0) for stub in lost}
        if not lost:
            return None
        ready = await self._ready_models()
        if ready is None:
            return None
        for stub in lost:
            if stub.model not in ready:
                self._seen.discard(stub)
                continue
            self._looks[stub] += 1
            if self._looks[stub] >= _LOOKS:
                return f"the process of model instance {stub.instance} is dead; restarting Triton"
        return None

    async def _ready_models(self) -> set[str] | None:
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                session.post(self._index, json={"ready": True}) as answer,
            ):
                return {entry["name"] for entry in await answer.json(content_type=None)}
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None


def stubs_of(group: int) -> set[Stub]:
    return {
        stub
        for line in members(group)
        if line.command.startswith(_STUB[:15])
        if (stub := read_stub(line.pid)) is not None
    }


def read_stub(pid: int) -> Stub | None:
    """From its command line: ``STUB …/MODEL/VERSION/model.py SHM … INSTANCE DEFAULT``.

    ``None`` for the short-lived stub that completes a model's configuration while it is loaded:
    it is called as the model is, an instance has numbers after that.
    """
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except (OSError, UnicodeDecodeError):
        return None
    if len(words) < 9 or not words[0].endswith(_STUB):
        return None
    model, instance = Path(words[1]).parent.parent.name, words[8]
    return Stub(model, instance) if instance != model else None

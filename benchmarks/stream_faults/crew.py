"""Workers beside the stack's own one: added, taken away, and begun anew when they die."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from streams.settings import Settings
from streams.stack.child import describe_exit, spawn_leashed
from streams.stack.groups import kill_group
from streams.stack.ports import PortBook
from streams.stack.recipe import Recipe
from streams.stack.services import Service, service_recipe

AGAIN_AFTER_S = 0.5
STOP_WITHIN_S = 15.0
"""As the stack gives every process."""


@dataclass(slots=True)
class Member:
    recipe: Recipe
    log: Path
    process: asyncio.subprocess.Process | None = None
    keeper: asyncio.Task[None] | None = None


class Crew:
    """Each worker has its own port for metrics, and otherwise the stack's settings."""

    def __init__(self, settings: Settings, logs: Path, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._logs = logs
        self._say = say
        self._book = PortBook()
        self._ports: dict[str, int] = {}
        self._members: dict[str, Member] = {}
        self._leaving: list[asyncio.Task[None]] = []
        self.restarts = 0
        self.stubborn = 0
        """So many did not end by SIGTERM in time."""

    @property
    def names(self) -> list[str]:
        return sorted(self._members)

    async def add(self, name: str) -> None:
        port = self._ports.setdefault(name, self._book.take())
        recipe = service_recipe(
            Service(name, "streams.worker", ()), self._settings, port, self._logs
        )
        member = Member(recipe, self._logs / f"{name}.log")
        self._members[name] = member
        await self._spawn(member)
        member.keeper = asyncio.create_task(self._keep(member))

    def kill(self, name: str, sig: int = signal.SIGKILL) -> int | None:
        """It is begun anew; ``None``: it is not there just now."""
        process = self._members[name].process
        if process is None or process.returncode is not None:
            return None
        kill_group(process.pid, sig)
        return process.pid

    async def remove(self, name: str, sig: int) -> None:
        """For good; its end is not waited for. One that does not end by the signal in time is
        killed."""
        member = self._members.pop(name)
        if member.keeper is not None:
            member.keeper.cancel()
            with suppress(asyncio.CancelledError):
                await member.keeper
        process = member.process
        if process is not None and process.returncode is None:
            kill_group(process.pid, sig)
            self._leaving.append(asyncio.create_task(self._end(name, process)))

    async def _end(self, name: str, process: asyncio.subprocess.Process) -> None:
        try:
            await asyncio.wait_for(process.wait(), STOP_WITHIN_S)
        except TimeoutError:
            self.stubborn += 1
            self._say(f"{name}: does not end within {STOP_WITHIN_S:g} s; killed")
        kill_group(process.pid)
        await process.wait()

    async def stop(self) -> None:
        for name in self.names:
            await self.remove(name, signal.SIGKILL)
        await asyncio.gather(*self._leaving)
        self._book.release()

    async def _spawn(self, member: Member) -> None:
        recipe = member.recipe
        member.process = await spawn_leashed(recipe.argv, recipe.env, recipe.cwd, member.log)

    async def _keep(self, member: Member) -> None:
        while member.process is not None:
            code = await member.process.wait()
            kill_group(member.process.pid)
            self._say(f"{member.recipe.name}: ended ({describe_exit(code)}); begun anew")
            await asyncio.sleep(AGAIN_AFTER_S)
            self.restarts += 1
            await self._spawn(member)

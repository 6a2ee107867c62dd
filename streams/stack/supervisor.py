"""Starts units in the order of their dependencies, keeps processes running, stops all of them."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from metering.errors import StackError
from streams.stack.child import SAY_EVERY_S, Child
from streams.stack.custody import Custody
from streams.stack.recipe import Progress, Recipe, Step, Unit
from streams.stack.restarts import GiveUp, RestartPolicy

_WATCH_EVERY_S = 0.5


class Supervisor:
    """Runs ``units``; a dependency that is not among them counts as met.

    ``on_change`` is called whenever a process was started, so that its new pid can be published.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        log_dir: Path,
        custody: Custody,
        on_progress: Progress,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._units = {unit.name: unit for unit in units}
        self._log_dir = log_dir
        self._custody = custody
        self._say = on_progress
        self._on_change = on_change
        self._children: dict[str, Child] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._failure: StackError | None = None
        self._failed = asyncio.Event()
        self.restarts: dict[str, int] = {u.name: 0 for u in units if isinstance(u, Recipe)}

    @property
    def pids(self) -> dict[str, int]:
        return {name: child.pid for name, child in self._children.items() if child.alive}

    async def start(self) -> None:
        """Start everything, in parallel where dependencies allow; the first failure is raised."""
        self._log_dir.mkdir(parents=True, exist_ok=True)
        up = {name: asyncio.Event() for name in self._units}
        starters = [asyncio.create_task(self._bring_up(u, up)) for u in self._units.values()]
        try:
            await asyncio.gather(*starters)
        finally:
            for task in starters:
                task.cancel()
            await asyncio.gather(*starters, return_exceptions=True)

    async def wait(self) -> None:
        """Until a process keeps dying and is given up; raises the ``StackError`` that says so."""
        await self._failed.wait()
        if self._failure is not None:
            raise self._failure

    def kill(self, name: str, sig: int = signal.SIGKILL) -> int:
        """Signal the group of a process and return its pid; it is restarted when it ends.

        Raises:
            StackError: there is no such process, or it is not running just now.
        """
        child = self._children.get(name)
        if child is None or not child.alive:
            raise StackError(f"{name} is not running; running: {', '.join(sorted(self.pids))}")
        return child.kill(sig)

    async def stop(self) -> None:
        """Stop each process once everything that depends on it has stopped."""
        for task in self._keepers:
            task.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers.clear()
        stopped = {name: asyncio.Event() for name in self._units}
        await asyncio.gather(*(self._take_down(name, stopped) for name in self._units))
        self._children.clear()

    async def _bring_up(self, unit: Unit, up: dict[str, asyncio.Event]) -> None:
        for dependency in unit.depends:
            if dependency in up:
                await up[dependency].wait()
        if isinstance(unit, Step):
            await self._narrated(f"{unit.name}: not done", unit.action())
        else:
            if unit.prepare is not None:
                await self._narrated(f"{unit.name}: in preparation", unit.prepare())
            begun = time.monotonic()
            self._say(f"{unit.name}: starting")
            child = await self._spawn(unit)
            await child.become_ready(self._say)
            self._say(f"{unit.name}: ready after {time.monotonic() - begun:.1f} s")
            self._keepers.append(asyncio.create_task(self._keep(unit, child)))
        up[unit.name].set()

    async def _narrated(self, what: str, work: Awaitable[None]) -> None:
        """Wait for ``work``, and say every five seconds that it still takes."""
        doing = asyncio.ensure_future(work)
        begun = time.monotonic()
        try:
            while not (await asyncio.wait({doing}, timeout=SAY_EVERY_S))[0]:
                self._say(f"{what} after {time.monotonic() - begun:.0f} s")
        finally:
            doing.cancel()
        doing.result()

    async def _take_down(self, name: str, stopped: dict[str, asyncio.Event]) -> None:
        unit = self._units[name]
        earlier = unit.stops_after if isinstance(unit, Recipe) else ()
        for other in self._units.values():
            if name in other.depends or other.name in earlier:
                await stopped[other.name].wait()
        child = self._children.get(name)
        if child is not None:
            await child.stop(self._custody)
            self._say(f"{name}: stopped")
        stopped[name].set()

    async def _spawn(self, recipe: Recipe) -> Child:
        child = await Child.spawn(recipe, self._log_dir / f"{recipe.name}.log", self._custody)
        self._children[recipe.name] = child
        self._on_change()
        return child

    async def _keep(self, recipe: Recipe, child: Child) -> None:
        policy = RestartPolicy()
        while True:
            await self._until_dead(child)
            ready_s = child.ready_s(time.monotonic())
            await child.bury(self._custody)
            policy, verdict = policy.after_exit(ready_s, child.killed_on_purpose, child.waits)
            if isinstance(verdict, GiveUp):
                self._give_up(child, verdict)
                return
            self._say(
                f"{recipe.name}: died ({child.outcome}); restarting in {verdict.delay_s:.1f} s, "
                f"log {child.log}"
            )
            await asyncio.sleep(verdict.delay_s)
            begun = time.monotonic()
            self.restarts[recipe.name] += 1
            child = await self._spawn(recipe)
            try:
                await child.become_ready(self._say)
            except StackError as problem:
                self._say(str(problem))
                child.kill_unready()
            else:
                self._say(f"{recipe.name}: ready again after {time.monotonic() - begun:.1f} s")

    async def _until_dead(self, child: Child) -> None:
        watcher = asyncio.create_task(self._watch(child))
        try:
            await child.wait()
        finally:
            watcher.cancel()

    async def _watch(self, child: Child) -> None:
        """End a process that its watch finds broken; what follows is as if it had died."""
        if child.recipe.watch is None or child.ready_at is None:
            return
        look = child.recipe.watch()
        while True:
            reason = await look(child.pid)
            if reason is not None:
                break
            await asyncio.sleep(_WATCH_EVERY_S)
        self._say(f"{child.recipe.name}: {reason}")
        await child.end()

    def _give_up(self, child: Child, verdict: GiveUp) -> None:
        self._failure = child.error(f"died {verdict.short_lives} times in a row")
        self._say(str(self._failure))
        self._failed.set()

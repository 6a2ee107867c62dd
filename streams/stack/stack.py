"""The whole stack as one object: started, published, watched, stopped."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self

from metering.errors import StackError
from streams.settings import Settings
from streams.stack.checks import (
    check_addresses,
    check_price_book,
    check_reachable,
    check_settings,
)
from streams.stack.config import Endpoints, StackConfig
from streams.stack.custody import Custody, taken
from streams.stack.groups import read_process
from streams.stack.paths import check_folder, is_plain, link_to, plain_holder
from streams.stack.plan import Ports, place_price_book, plan, settings_for
from streams.stack.ports import PortBook
from streams.stack.recipe import Progress
from streams.stack.running import ENDPOINTS_FILE, find_running
from streams.stack.supervisor import Supervisor
from streams.stack.triton import shm_prefix


def _silent(_: str) -> None:
    return None


class Stack:
    """Kafka, ClickHouse's engine, Triton and the project's services in ``config.folder``.

    Nothing is left behind: each process leads a group that is killed with it, dies with this one
    by the kernel's doing, and a sweeper removes the rest even after a SIGKILL. ``only`` names the
    units to run (for tests and benchmarks); what they depend on runs too.

    A process that dies is restarted where it was; one that keeps dying is given up, which
    ``wait`` raises. Start it from a thread that lives as long as the stack does: the kernel ties
    the processes to the thread that started them.
    """

    def __init__(
        self,
        config: StackConfig,
        on_progress: Progress | None = None,
        only: Collection[str] | None = None,
    ) -> None:
        self._config = config
        self._say = on_progress if on_progress is not None else _silent
        self._only = only
        self._folder = config.folder.resolve()
        self._custody = Custody(self._folder)
        self._book = PortBook()
        self._ports: Ports | None = None
        self._settings: Settings | None = None
        self._supervisor: Supervisor | None = None
        self._published = False

    async def start(self) -> Endpoints:
        """Everything up, or nothing.

        Raises:
            StackError: naming what is missing, or the process that did not start and its log.
            MeteringError: a setting or the price book can't be used; then nothing was started.
        """
        if self._supervisor is not None:
            raise StackError(f"the stack in {self._folder} was started already")
        check_folder(self._folder)
        check_addresses(self._config)
        if find_running(self._folder) is not None:
            raise taken(self._folder)
        await self._custody.take()  # one that is just ending is waited for
        try:
            await self._start()
        except BaseException:
            await asyncio.shield(self.stop())
            raise
        return self.endpoints

    async def stop(self) -> None:
        """Stop all processes and remove what they left; data and logs stay. May be repeated."""
        if self._published:
            self._published = False
            (self._folder / ENDPOINTS_FILE).unlink(missing_ok=True)
        if self._supervisor is not None:
            await self._supervisor.stop()
        await self._custody.release()
        self._book.release()

    async def wait(self) -> None:
        """Until a process is given up; raises the ``StackError`` that names it and its log."""
        await self._running().wait()

    def kill(self, name: str, sig: int = signal.SIGKILL) -> int:
        """Signal a process and its group; returns its pid. It is then restarted."""
        return self._running().kill(name, sig)

    @property
    def restarts(self) -> dict[str, int]:
        return dict(self._running().restarts)

    @property
    def settings(self) -> Settings:
        if self._settings is None:
            raise StackError("the stack was not started")
        return self._settings

    @property
    def endpoints(self) -> Endpoints:
        """As of now: a restarted process has another pid."""
        settings, supervisor = self.settings, self._running()
        own = read_process(os.getpid())
        metrics = self._ports.metrics_urls() if self._ports is not None else {}
        return Endpoints(
            kafka=settings.kafka,
            clickhouse=settings.clickhouse,
            triton_grpc=settings.triton_grpc,
            triton_http=settings.triton_http,
            triton_metrics=settings.triton_metrics,
            folder=self._folder,
            log_dir=settings.log_dir,
            price_book=settings.price_book,
            metrics={name: url for name, url in metrics.items() if name in supervisor.restarts},
            pids=supervisor.pids,
            supervisor_pid=os.getpid(),
            supervisor_started_ticks=own.started_ticks if own is not None else 0,
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await asyncio.shield(self.stop())

    async def _start(self) -> None:
        shm = shm_prefix()
        self._custody.remember(shm=shm)
        self._custody.remember(file=str(self._folder / ENDPOINTS_FILE))
        self._ports = Ports.take(self._book, self._config.preferred_ports)
        base = Settings.from_env()
        self._settings = settings_for(self._config, self._folder, self._ports, base)
        check_settings(self._settings)
        for folder in ("logs", "triton"):
            (self._folder / folder).mkdir(parents=True, exist_ok=True)
        self._settings.log_dir.mkdir(parents=True, exist_ok=True)
        self._settings.state_dir.mkdir(parents=True, exist_ok=True)
        place_price_book(self._settings, self._folder)
        check_price_book(self._settings.price_book)
        await check_reachable(self._config, self._settings)
        units = plan(
            config=self._config,
            folder=self._folder,
            settings=self._settings,
            ports=self._ports,
            shm=shm,
            on_progress=self._say,
            only=self._only,
            triton_folder=self._plain(self._folder / "triton"),
        )
        logs = self._folder / "logs"
        self._supervisor = Supervisor(units, logs, self._custody, self._say, self._publish_restart)
        await self._supervisor.start()
        self._published = True
        self._publish()

    def _plain(self, folder: Path) -> Path:
        """``folder``, or a link to it; the link goes when the stack does."""
        if is_plain(folder):
            return folder
        holder = plain_holder()
        self._custody.remember(tree=str(holder))
        return link_to(folder, holder)

    def _publish_restart(self) -> None:
        if self._published:
            self._publish()

    def _publish(self) -> None:
        path = self._folder / ENDPOINTS_FILE
        part = path.with_suffix(".part")
        part.write_text(self.endpoints.model_dump_json(indent=2) + "\n")
        part.replace(path)

    def _running(self) -> Supervisor:
        if self._supervisor is None:
            raise StackError("the stack was not started")
        return self._supervisor

"""The supervisor, with small real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from metering.errors import StackError
from streams.stack.child import describe_exit
from streams.stack.custody import Custody
from streams.stack.groups import members
from streams.stack.recipe import Recipe, Step, Unit
from streams.stack.restarts import MOST_SHORT_LIVES
from streams.stack.supervisor import Supervisor
from tests.waiting import until

SERVE = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
WITH_CHILD = (
    "import pathlib, subprocess, sys, time; subprocess.Popen(['sleep', '600']);"
    "pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
)
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SERVE


class Room:
    """A folder with a supervisor at work in it; ``said`` is its progress."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.custody = Custody(folder)
        self.said: list[str] = []
        self.supervisor: Supervisor | None = None

    def recipe(
        self,
        name: str,
        code: str = SERVE,
        depends: tuple[str, ...] = (),
        stop_timeout_s: float = 5.0,
        clean: Callable[[], None] | None = None,
    ) -> Recipe:
        up = self.folder / f"{name}.up"

        async def ready() -> bool:
            return up.exists()

        return Recipe(
            name=name,
            argv=(sys.executable, "-I", "-S", "-c", code, str(up)),
            env=dict(os.environ),
            ready=ready,
            cwd=self.folder,
            depends=depends,
            clean=clean,
            start_timeout_s=60.0,
            stop_timeout_s=stop_timeout_s,
        )

    async def start(self, *units: Unit) -> Supervisor:
        self.supervisor = Supervisor(units, self.folder / "logs", self.custody, self.said.append)
        await self.supervisor.start()
        return self.supervisor


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    room = Room(tmp_path)
    await room.custody.take()
    yield room
    if room.supervisor is not None:
        await room.supervisor.stop()
    await room.custody.release()


async def test_a_unit_starts_after_what_it_depends_on_and_stops_before(room: Room) -> None:
    order: list[str] = []

    async def step() -> None:
        order.append("step sees first: " + str((room.folder / "first.up").exists()))

    supervisor = await room.start(
        room.recipe("last", depends=("step",)),
        Step("step", step, depends=("first",)),
        room.recipe("first"),
    )
    assert order == ["step sees first: True"]
    starts = [line for line in room.said if line.endswith("starting")]
    assert starts == ["first: starting", "last: starting"]
    await supervisor.stop()
    assert room.said[-2:] == ["last: stopped", "first: stopped"]


async def test_a_process_that_exits_ends_the_wait_though_its_probe_has_not_answered(
    room: Room,
) -> None:
    async def never() -> bool:
        await asyncio.Event().wait()
        return True

    code = "print('no such model: nope', flush=True); raise SystemExit(3)"
    recipe = replace(room.recipe("one", code), ready=never, start_timeout_s=3600.0)
    with pytest.raises(StackError, match=r"one exited while starting \(exit code 3\)") as error:
        async with asyncio.timeout(60):
            await room.start(recipe)
    assert "no such model: nope" in str(error.value)


async def test_what_takes_is_said_with_the_last_line_of_its_log(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("child", "supervisor"):
        monkeypatch.setattr(f"streams.stack.{module}.SAY_EVERY_S", 0.1)

    async def until_said() -> None:
        await until(lambda: any(line.startswith("step: not done") for line in room.said))

    async def until_both_said() -> bool:
        said = [line for line in room.said if line.startswith("one: not ready after")]
        return bool(said) and said[-1].endswith("its log ends: loading weights")

    code = "print('loading weights', flush=True); import time; time.sleep(600)"
    recipe = replace(room.recipe("one", code), ready=until_both_said, start_timeout_s=60.0)
    await room.start(Step("step", until_said), recipe)


async def test_a_killed_process_comes_back_with_another_pid_and_is_counted(room: Room) -> None:
    supervisor = await room.start(room.recipe("one"), room.recipe("two"))
    before = supervisor.pids
    (room.folder / "one.up").unlink()
    assert supervisor.kill("one") == before["one"]
    await until(lambda: any("ready again" in line for line in room.said))
    assert supervisor.restarts == {"one": 1, "two": 0}
    assert supervisor.pids["one"] != before["one"]
    assert supervisor.pids["two"] == before["two"]
    assert any("signal 9, SIGKILL" in line for line in room.said)


async def test_a_kill_takes_the_whole_group(room: Room) -> None:
    supervisor = await room.start(room.recipe("one", WITH_CHILD))
    group = supervisor.pids["one"]
    await until(lambda: {line.command for line in members(group)} >= {"sleep"})
    supervisor.kill("one")
    await until(lambda: not members(group))


async def test_a_death_of_the_leader_takes_its_children_along(room: Room) -> None:
    supervisor = await room.start(room.recipe("one", WITH_CHILD))
    group = supervisor.pids["one"]
    os.kill(group, signal.SIGKILL)
    await until(lambda: not members(group))


async def test_stop_ends_a_process_that_ignores_the_signal(room: Room) -> None:
    supervisor = await room.start(room.recipe("one", STUBBORN, stop_timeout_s=0.3))
    group = supervisor.pids["one"]
    await supervisor.stop()
    assert members(group) == []
    assert supervisor.pids == {}


async def test_what_a_process_leaves_is_cleaned_after_each_end(room: Room) -> None:
    cleaned: list[int] = []
    supervisor = await room.start(room.recipe("one", clean=lambda: cleaned.append(1)))
    supervisor.kill("one")
    await until(lambda: supervisor.restarts["one"] == 1)
    assert len(cleaned) == 1
    await supervisor.stop()
    assert len(cleaned) == 2


async def test_a_process_that_dies_while_starting_is_named_with_code_log_and_last_lines(
    room: Room,
) -> None:
    code = "import sys; print('the disk is full'); sys.exit(3)"
    with pytest.raises(StackError) as error:
        await room.start(room.recipe("good"), room.recipe("broken", code))
    text = str(error.value)
    assert "broken exited while starting (exit code 3)" in text
    assert str(room.folder / "logs" / "broken.log") in text
    assert "the disk is full" in text


async def test_a_command_that_does_not_exist_is_named(room: Room) -> None:
    recipe = room.recipe("ghost")
    ghost = Recipe("ghost", ("/no/such/command",), recipe.env, recipe.ready, recipe.cwd)
    with pytest.raises(StackError, match="can't run /no/such/command"):
        await room.start(ghost)


async def test_a_process_that_keeps_dying_is_given_up_and_waiting_says_why(room: Room) -> None:
    code = SERVE.replace("time.sleep(600)", "time.sleep(0.2); print('no more'); sys.exit(7)")
    supervisor = await room.start(room.recipe("one", code))
    with pytest.raises(StackError, match=r"one died \d+ times in a row \(exit code 7\)") as error:
        await asyncio.wait_for(supervisor.wait(), 30)
    assert "no more" in str(error.value)
    assert supervisor.restarts["one"] == MOST_SHORT_LIVES - 1
    assert supervisor.pids == {}


async def test_a_process_that_ends_because_another_is_away_is_never_given_up(room: Room) -> None:
    code = SERVE.replace("time.sleep(600)", "time.sleep(0.2); sys.exit(75)")
    supervisor = await room.start(room.recipe("one", code))
    failing = asyncio.create_task(supervisor.wait())
    await until(lambda: supervisor.restarts["one"] > MOST_SHORT_LIVES)
    assert not failing.done()
    failing.cancel()


async def test_only_what_runs_can_be_killed(room: Room) -> None:
    supervisor = await room.start(room.recipe("one"))
    with pytest.raises(StackError, match="two is not running; running: one"):
        supervisor.kill("two")


async def test_a_folder_has_one_stack_at_a_time(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.stack.custody._LOCK_WAIT_S", 0.3)
    second = Custody(room.folder)
    with pytest.raises(StackError, match="a stack is running in"):
        await second.take()
    await room.custody.release()
    await second.take()
    await second.release()


def test_an_exit_is_described_in_words() -> None:
    assert describe_exit(0) == "exit code 0"
    assert describe_exit(-15) == "signal 15, SIGTERM"
    assert describe_exit(-35) == "signal 35"

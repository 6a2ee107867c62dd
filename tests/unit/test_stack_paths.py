"""Folders with spaces, quotes and letters of any alphabet; and those that are refused at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from metering.errors import StackError
from streams.settings import Settings
from streams.stack.config import StackConfig
from streams.stack.kafka import server_properties
from streams.stack.paths import MOST_BYTES, check_folder, is_plain, link_to, plain_holder
from streams.stack.plan import Ports, plan, settings_for
from streams.stack.ports import PortBook
from streams.stack.recipe import Recipe
from streams.stack.stack import Stack
from streams.stack.sweeper import sweep

ODD = ("a b", "it's", 'q"q', "100%", "a=b", "ü-日本", "$HOME", "a,b;c", "a\\b", " a ", "[x]*", "-x")


@pytest.mark.parametrize("name", ODD)
def test_a_folder_with_odd_characters_is_taken_and_no_shell_gets_its_path(
    name: str, tmp_path: Path
) -> None:
    folder = tmp_path / name / "stack"
    check_folder(folder)
    assert not is_plain(tmp_path / name) or name == "-x"
    holder = plain_holder()
    link = link_to(tmp_path, holder)
    assert is_plain(link)
    assert link.resolve() == tmp_path.resolve()
    shutil.rmtree(holder)


@pytest.mark.parametrize("name", ["a?b", "a\nb", "a\tb", "\x1b[31m", "caf\udce9"])
def test_a_folder_in_which_a_process_can_not_work_is_refused_and_named(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(StackError, match="use another --dir"):
        check_folder(tmp_path / name)


def test_a_path_that_is_too_long_is_refused_and_one_that_is_long_is_not(tmp_path: Path) -> None:
    check_folder(Path("/" + "/".join(["x" * 200] * 9)))
    with pytest.raises(StackError, match=f"more than {MOST_BYTES}"):
        check_folder(Path("/" + "/".join(["x" * 200] * 20)))


async def test_a_refused_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="ClickHouse"):
        await Stack(StackConfig(tmp_path / "a?b")).start()
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_can_not_be_written_to_is_an_error_that_names_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "stack", Path("/proc/stack"), tmp_path / ("x" * 256)):
        with pytest.raises(StackError, match="can't write to the folder"):
            await Stack(StackConfig(folder)).start()


def test_kafkas_properties_have_no_path_that_would_have_to_be_escaped() -> None:
    lines = dict(line.split("=", 1) for line in server_properties(1, 2).splitlines())
    assert lines["log.dirs"] == "data"


@pytest.mark.parametrize("name", ODD)
def test_neither_kafka_nor_triton_is_given_the_folders_own_path(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    book = PortBook()
    ports = Ports.take(book, preferred=False)
    config = StackConfig(folder)
    units = plan(
        config=config,
        folder=folder,
        settings=settings_for(config, folder, ports, Settings()),
        ports=ports,
        shm="test_",
        on_progress=lambda _: None,
        only=("kafka", "triton"),
        triton_folder=Path("/plain/stack"),
    )
    book.release()
    for unit in units:
        assert isinstance(unit, Recipe)
        assert not [word for word in unit.argv if str(folder) in word], unit.name


def test_the_sweeper_removes_links_and_not_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kept").touch()
    holder = plain_holder()
    link_to(tmp_path / "data", holder)
    sweep([f'{{"tree": "{holder}"}}'])
    assert not holder.exists()
    assert (tmp_path / "data" / "kept").exists()

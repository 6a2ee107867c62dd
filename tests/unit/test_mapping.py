"""Numbers of a file in memory: other processes see them, and a page that is gone kills nobody."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import pytest

from metering.compiled_server import IS_COMPILED

if not IS_COMPILED and which("cc") is None and which("gcc") is None:
    pytest.skip("no C compiler: boards do without mappings", allow_module_level=True)

from metering.mapping import Mapping

SIZE = 4608
PAGE = os.sysconf("SC_PAGESIZE")


@contextmanager
def opened(path: Path, size: int = SIZE) -> Iterator[tuple[Mapping, int]]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    mapping = None
    try:
        os.pwrite(fd, bytes(size), 0)
        mapping = Mapping(fd, size)
        yield mapping, fd
    finally:
        if mapping is not None:
            mapping.close()
        os.close(fd)


def numbers(fd: int, place: int, count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}q", os.pread(fd, 8 * count, 8 * place))


def test_what_is_put_is_read_by_calls_and_what_is_written_is_got(tmp_path: Path) -> None:
    with opened(tmp_path / "file") as (mapping, fd):
        for place, number in ((0, -(2**63)), (1, 2**63 - 1), (SIZE // 8 - 1, -1)):
            mapping.put(place, number)
            assert numbers(fd, place, 1) == (number,)
        os.pwrite(fd, struct.pack("<q", 77), 8 * 5)
        assert mapping.get(5) == 77
        mapping.put_between(9, 4, 5, 6)
        assert numbers(fd, 8, 6) == (0, 4, 5, 6, 4, 0)


@pytest.mark.parametrize("place", [-1, SIZE // 8, 2**40])
def test_there_is_nothing_beyond_its_places(tmp_path: Path, place: int) -> None:
    with opened(tmp_path / "file") as (mapping, _):
        with pytest.raises(IndexError, match=str(place)):
            mapping.get(place)
        with pytest.raises(IndexError, match=str(place)):
            mapping.put(place, 1)
        with pytest.raises(IndexError):
            mapping.put_between(SIZE // 8 - 3, 1, 2, 3)


def test_one_that_is_closed_has_no_places(tmp_path: Path) -> None:
    with opened(tmp_path / "file") as (mapping, _):
        mapping.close()
        mapping.close()
        with pytest.raises(IndexError):
            mapping.put(0, 1)


def test_a_file_that_can_not_be_mapped_is_refused(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match=r"\[Errno \d+\]"):
            Mapping(fd, SIZE)
    finally:
        os.close(fd)


def test_more_mappings_than_are_watched_are_refused_and_places_come_back(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, bytes(SIZE), 0)
    try:
        for _ in range(2):
            kept = list[Mapping]()
            with pytest.raises(OSError, match="Too many open files"):
                kept.extend(Mapping(fd, SIZE) for _ in range(1000))
            assert len(kept) > 100
            kept.clear()
    finally:
        os.close(fd)


def test_a_file_that_is_cut_is_told_and_kills_nobody(tmp_path: Path) -> None:
    with opened(tmp_path / "file") as (mapping, fd), opened(tmp_path / "other") as (other, _):
        os.ftruncate(fd, 0)
        for _ in range(2):
            with pytest.raises(OSError, match="the file was cut"):
                mapping.put(0, 1)
            with pytest.raises(OSError, match="the file was cut"):
                mapping.get(3)
        assert os.fstat(fd).st_size == 0
        other.put(0, 5)
        assert other.get(0) == 5


def test_the_page_that_is_left_of_a_cut_file_is_still_the_files(tmp_path: Path) -> None:
    with opened(tmp_path / "file", 2 * PAGE) as (mapping, fd):
        os.ftruncate(fd, PAGE)
        mapping.put(0, 3)
        assert numbers(fd, 0, 1) == (3,)
        with pytest.raises(OSError, match="the file was cut"):
            mapping.put(PAGE // 8, 1)


ELSEWHERE = """
import mmap, os, sys
from metering.mapping import Mapping
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.pwrite(fd, bytes(4608), 0)
mine = Mapping(fd, 4608)
others = mmap.mmap(fd, 4608)
os.ftruncate(fd, 0)
try:
    mine.put(0, 1)
except OSError:
    print("told", flush=True)
others[0] = 1
print("alive", flush=True)
"""


@pytest.mark.parametrize("before", ["", "import faulthandler; faulthandler.enable()\n"])
def test_a_fault_in_a_page_of_others_goes_where_it_went_before(tmp_path: Path, before: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", before + ELSEWHERE, tmp_path / "file"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout) == (-signal.SIGBUS, "told\n")
    assert ("Fatal Python error: Bus error" in ran.stderr) == bool(before)


WRITER = """
import os, sys
from metering.mapping import Mapping
mapping = Mapping(os.open(sys.argv[1], os.O_RDWR), 4608)
print("open", flush=True)
n = 0
while True:
    n += 1
    mapping.put_between(3, n, 2 * n, 3 * n)
"""


def test_who_finds_both_marks_the_same_has_the_numbers_between_them(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE))
    with (
        subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE) as writer,
        path.open("rb") as file,
    ):
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"open\n"
            seen = set()
            until = time.monotonic() + 120
            while len(seen) <= 100:
                assert time.monotonic() < until
                mark, one, two, again = numbers(file.fileno(), 3, 4)
                if mark == again:
                    assert (one, two) == (2 * mark, 3 * mark)
                    seen.add(mark)
        finally:
            writer.kill()

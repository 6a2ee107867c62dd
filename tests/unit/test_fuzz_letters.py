"""The fuzzer's own judgement: what is wrong with a dead letter or with what is stored is found."""

from __future__ import annotations

from decimal import Decimal

import pytest

from benchmarks.fuzz import generator
from benchmarks.fuzz.batches import Batch, Part
from benchmarks.fuzz.journal import Journal
from benchmarks.fuzz.kinds import KINDS, RIGHT, Made
from benchmarks.fuzz.letters import Letters, judge
from benchmarks.fuzz.stored import compare

SOUND = Batch("s", 3, "m", 1_780_000_001 * 10**9, (Part("acme", 1, 2, 1000),))
HEADERS = [
    ("ce_id", b"0@0"),
    ("meter_reason", b"malformed"),
    ("meter_detail", b"x"),
    *((f"original_{name}", value) for name, value in RIGHT),
]
LINE = ("s", 3, 0, "acme", "m", "ok", 1, 2, 1000, Decimal("1e-9"), SOUND.end_epoch_ns)
SUMS = (1, 0, 1, 2, 1000, Decimal("1e-9"))
WINDOWS = [(10, 1_780_000_000, "acme", "m", *SUMS), (60, 1_779_999_960, "acme", "m", *SUMS)]


@pytest.fixture
def journal() -> Journal:
    made = Journal()
    made.place(0, [made.note(KINDS["rubbish"], Made(b"{"))])
    made.place(1, [made.note(KINDS["sound"], Made(b"{}", batch=SOUND))])
    return made


def judged(journal: Journal, *letters: tuple[bytes, list[tuple[str, bytes]]]) -> Letters:
    found, seen = Letters(), bytearray(len(journal))
    for value, headers in letters:
        judge(found, seen, journal, value, headers)
    return found


def changed(name: str, value: bytes) -> list[tuple[str, bytes]]:
    return [(n, value if n == name else v) for n, v in HEADERS]


def test_a_letter_that_is_as_it_should_be_is_right(journal: Journal) -> None:
    found = judged(journal, (b"{", HEADERS))
    assert (found.right, found.examples) == (1, [])


@pytest.mark.parametrize(
    ("value", "headers", "count"),
    [
        (b"[", HEADERS, "altered"),
        (b"{", changed("original_ce_id", b"1"), "altered"),
        (b"{", changed("meter_reason", b"invalid"), "other_reason"),
        (b"{", changed("ce_id", b"0@1"), "unexpected"),
        (b"{", changed("ce_id", b"0@2"), "unexpected"),
        (b"{", changed("ce_id", b"1@0"), "unexpected"),
    ],
)
def test_a_letter_that_is_not_as_it_should_be_is_told(
    journal: Journal, value: bytes, headers: list[tuple[str, bytes]], count: str
) -> None:
    found = judged(journal, (value, headers))
    assert (getattr(found, count), found.right, len(found.examples)) == (1, 0, 1)


def test_a_letter_that_comes_again_is_told(journal: Journal) -> None:
    assert judged(journal, (b"{", HEADERS), (b"{", HEADERS)).repeated == 1


def test_lines_and_windows_that_are_as_they_should_be_are_right(journal: Journal) -> None:
    assert compare(journal, [LINE], WINDOWS).is_right


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ([], "missing"),
        ([LINE, ("other", *LINE[1:])], "unknown"),
        ([LINE, LINE], "wrong"),
        ([(*LINE[:8], 1001, *LINE[9:])], "wrong"),
    ],
)
def test_lines_that_are_not_as_they_should_be_are_told(
    journal: Journal, lines: list[tuple[object, ...]], count: str
) -> None:
    found = compare(journal, lines, WINDOWS)
    assert (getattr(found, count), found.wrong_windows) == (1, 0)
    assert not found.is_right


@pytest.mark.parametrize(
    "windows", [WINDOWS[:1], [WINDOWS[0], (*WINDOWS[1][:4], 2, *WINDOWS[1][5:])]]
)
def test_windows_that_are_not_as_they_should_be_are_told(
    journal: Journal, windows: list[tuple[object, ...]]
) -> None:
    assert compare(journal, [LINE], windows).wrong_windows == 1


def test_a_seed_makes_the_same_messages_again() -> None:
    first, second = (list(generator.messages(900, 5, lambda: 10**18)) for _ in range(2))
    assert first == second
    assert first != list(generator.messages(900, 6, lambda: 10**18))
